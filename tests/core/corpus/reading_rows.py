"""How tests read a source: bad rows skipped and counted, or as the error that they are."""

from pathlib import Path
from typing import Any

import pytest

from longrecipe_core.corpus import Counts, iterate_documents
from longrecipe_core.errors import CorpusError
from longrecipe_core.recipe.sections import SourceSection


def read(path: Path | str, format: str, **options: Any) -> tuple[list[str | None], dict[str, Any]]:
    """The kept texts with bad rows skipped, and the counts."""
    counts = Counts()
    section = {"path": str(path), "format": format, "bad_rows": "skip", **options}
    documents = list(iterate_documents(SourceSection.model_validate(section), counts=counts))
    assert counts.read == len(documents) + counts.skipped.total()
    return [document.text for document in documents], counts.as_dict()


def refuse(path: Path | str, format: str, **options: Any) -> str:
    """The message where bad rows are errors."""
    with pytest.raises(CorpusError) as caught:
        list(iterate_documents(SourceSection.model_validate({"path": str(path), "format": format, **options})))
    assert "\n" not in str(caught.value)
    return str(caught.value)
