"""Whether the documents can do what the recipe asks of them: told before any training, not by a stage days later."""

from longrecipe_core.corpus import TokenShards, load_tokenizer
from longrecipe_core.corpus.mixture import Mixture, Sources, schedule
from longrecipe_core.evaluation.nll import choose_documents
from longrecipe_core.evaluation.passkey import check_passkey
from tasks.run import Work


def check_documents(work: Work) -> None:
    """Raise EvaluationError or IndexingError where validation documents or training documents are too short.

    Called by the first stage after `tokenize` that costs anything; `tokenize` itself keeps what it has made.
    """
    recipe = work.run.recipe
    directory = work.fetch("tokenize")
    target = recipe.context.target_length
    choose_documents(TokenShards(directory, "validation"), recipe.evaluation, target, recipe.seed)
    passkey = recipe.evaluation.passkey
    if passkey is not None:
        tokenizer = load_tokenizer(work.fetch("base"), bool(recipe.model and recipe.model.trust_remote_code))
        for distance in passkey.distances:
            check_passkey(tokenizer, distance, target)
    train = TokenShards(directory, "train")
    schedule(
        train.lengths,
        Sources.read(train),
        Mixture.of(recipe.corpus),
        train_length=recipe.context.train_length,
        samples=1,
        seed=recipe.seed,
    )
