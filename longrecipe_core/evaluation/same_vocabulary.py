"""Whether a model reads token ids as the base model does, whose tokenizer the documents went through."""

from pathlib import Path

from longrecipe_core.errors import EvaluationError


def check_vocabulary(base: Path, other: Path, where: str, trust_remote_code: bool = False) -> None:
    """Raise EvaluationError where a token of the base model's tokenizer has another id in the other's, or none.

    More tokens, as chat models have, do no harm: no document holds them. `where` names the other model.
    """
    if _same_file(base, other):
        return  # without an import of transformers
    from longrecipe_core.corpus import load_tokenizer

    known, own = (load_tokenizer(directory, trust_remote_code).get_vocab() for directory in (base, other))
    if known.items() <= own.items():
        return
    token = min((token for token, number in known.items() if own.get(token) != number), key=known.__getitem__)
    raise EvaluationError(
        f"{where}: has another vocabulary than the base model, so losses per token don't compare: token {token!r} is "
        f"{known[token]} there and {own.get(token, 'none')} here ({len(known)} tokens against {len(own)}); a model of "
        f"the same family would do"
    )


def _same_file(base: Path, other: Path) -> bool:
    first, second = base / "tokenizer.json", other / "tokenizer.json"
    return first.is_file() and second.is_file() and first.read_bytes() == second.read_bytes()
