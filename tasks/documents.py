"""Whether the documents can do what the recipe asks of them: told before any training, not by a stage days later."""

from functools import cache, partial

from longrecipe_core.corpus import TokenShards, load_tokenizer
from longrecipe_core.corpus.mixture import Mixture, Sources, schedule
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.evaluation.benchmark_tasks import check_tasks
from longrecipe_core.evaluation.context_nll import window_ends
from longrecipe_core.evaluation.copying import check_copying
from longrecipe_core.evaluation.nll import choose_documents
from longrecipe_core.evaluation.passkey import check_passkey
from longrecipe_core.evaluation.retrieval import check_prompts, longest
from longrecipe_core.evaluation.ruler import Haystack
from tasks.other_models import check_vocabularies
from tasks.outside import other_references
from tasks.run import Work


def check_documents(work: Work) -> None:
    """Raise EvaluationError or IndexingError where validation documents or training documents are too short, or where
    lm-eval has not the benchmarks.

    Called by the first stage after `tokenize` that costs anything; `tokenize` itself keeps what it has made.
    """
    recipe = work.run.recipe
    if recipe.evaluation.benchmarks is not None:
        check_tasks(recipe.evaluation.benchmarks)
    directory = work.fetch("tokenize")
    target = recipe.context.target_length
    validation, evaluation = TokenShards(directory, "validation"), recipe.evaluation
    _, lengths = choose_documents(validation, evaluation, target, recipe.seed)
    if evaluation.context_nll is not None:
        window_ends(evaluation.context_nll, lengths)
    if evaluation.passkey is not None or evaluation.copying is not None or longest(evaluation):
        tokenizer = load_tokenizer(work.fetch("base"), bool(recipe.model and recipe.model.trust_remote_code))
        for distance in evaluation.passkey.distances if evaluation.passkey is not None else ():
            check_passkey(tokenizer, distance, target)
        if evaluation.copying is not None:
            check_copying(evaluation.copying, Encoder(tokenizer).prefix.size, target, int(lengths.max()))
        haystack = partial(Haystack.of_documents, validation, tokenizer, longest(evaluation), recipe.seed)
        check_prompts(evaluation, Encoder(tokenizer), cache(haystack))
    check_vocabularies(work, other_references(recipe, work.store))
    train = TokenShards(directory, "train")
    schedule(
        train.lengths,
        Sources.read(train),
        Mixture.of(recipe.corpus),
        train_length=recipe.context.train_length,
        samples=1,
        seed=recipe.seed,
    )
