"""Which documents are kept for evaluation only. Decided by a document's text and nothing else."""

import hashlib

from longrecipe_core.recipe.sections import CorpusSourceSection, SourceSection


def document_id(text: str) -> str:
    """The sha256 of the text's UTF-8 bytes, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def is_validation(document_id: str, share: float) -> bool:
    """Whether a document belongs to the validation split.

    True where the id's first 64 bits, as a number, are below `share` · 2⁶⁴. So the answer stays the same when
    other documents come or go, a greater share only ever adds documents, and copies of a text share their
    split.

    Args:
        document_id: 64 hexadecimal digits, see `document_id`.
        share: 0 (none) to 1 (all).

    Raises:
        ValueError: a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"validation share {share} is outside 0..1")
    return int(document_id[:16], 16) < share * 2**64


def share_of(source: SourceSection, share: float) -> float:
    """The validation share of a source's documents: its own where it has one, else `share`, that of the corpus."""
    own = source.validation_share if isinstance(source, CorpusSourceSection) else None
    return share if own is None else own
