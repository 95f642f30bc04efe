"""Whether the documents can do what the recipe asks of them: told before any training, not by a stage days later."""

from typing import Any

from longrecipe_core.corpus import TokenShards, load_tokenizer
from longrecipe_core.corpus.mixture import Mixture, Sources, schedule
from longrecipe_core.evaluation.benchmark_tasks import check_tasks
from longrecipe_core.evaluation.check import check_measures
from longrecipe_core.evaluation.nll import choose_documents
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

    def tokenizer() -> Any:
        return load_tokenizer(work.fetch("base"), bool(recipe.model and recipe.model.trust_remote_code))

    check_measures(evaluation, tokenizer, validation, lengths, target_length=target, seed=recipe.seed)
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
