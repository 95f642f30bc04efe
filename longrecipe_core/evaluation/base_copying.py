"""How well a base model that a recipe has trained copies."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.corpus import TokenShards, load_tokenizer
from longrecipe_core.evaluation.copying import Text, copied_shares, copying_row
from longrecipe_core.evaluation.nll import choose_documents
from longrecipe_core.modeling import load_model
from longrecipe_core.recipe import EvaluationSection, MinimumCopyingSection


def copying_documents(
    tokens: Path, section: MinimumCopyingSection, *, window: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids `[documents, window]` and lengths, as `choose_documents` has them; also a check before anything is trained.

    Raises:
        EvaluationError: No validation document has the tokens of the longest distance.
    """
    text = EvaluationSection(documents=512, minimum_length=min(window, max(section.distances)))
    return choose_documents(TokenShards(tokens, "validation"), text, window, seed)


def measure_base_copying(
    directory: Path, tokens: Path, section: MinimumCopyingSection, *, window: int, seed: int
) -> dict[str, float]:
    """Share of a copied span that the model in `directory` foretells, by distance; text is from validation documents.

    Raises:
        EvaluationError: No validation document has the tokens of the window.
    """
    found = Text.of(*copying_documents(tokens, section, window=window, seed=seed), load_tokenizer(directory))
    model: Any = load_model(directory).eval()
    rows = [
        copying_row(copied_shares(model, found, section, distance, seed=seed, bf16=False), distance)
        for distance in section.distances
    ]
    return {str(row["start"]): float(row["value"]) for row in rows}
