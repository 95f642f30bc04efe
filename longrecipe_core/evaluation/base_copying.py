"""How well a base model that a recipe has trained copies."""

from pathlib import Path
from typing import Any

from longrecipe_core.corpus import TokenShards, load_tokenizer
from longrecipe_core.evaluation.copying import Text, check_copying, copied_shares, copying_row
from longrecipe_core.evaluation.nll import choose_documents
from longrecipe_core.modeling import load_model
from longrecipe_core.recipe import EvaluationSection, MinimumCopyingSection


def measure_base_copying(
    directory: Path, tokens: Path, section: MinimumCopyingSection, *, window: int, seed: int
) -> dict[str, float]:
    """Share of a copied span that the model in `directory` foretells, by distance; text is from validation documents.

    Raises:
        EvaluationError: No validation document has the tokens of the window.
    """
    text = EvaluationSection(documents=512, minimum_length=min(window, max(section.distances)))
    documents, lengths = choose_documents(TokenShards(tokens, "validation"), text, window, seed)
    found = Text.of(documents, lengths, load_tokenizer(directory))
    check_copying(section, found.prefix.size, window)
    model: Any = load_model(directory).eval()
    rows = [
        copying_row(copied_shares(model, found, section, distance, seed=seed, bf16=False), distance)
        for distance in section.distances
    ]
    return {str(row["start"]): float(row["value"]) for row in rows}
