"""Which parameters are trained: all, or LoRA's updates with embeddings and norms."""

from longrecipe_core.cost.shapes import ModelShape
from longrecipe_core.recipe import LoraSection


def adapter_parameters(shape: ModelShape, lora: LoraSection | None) -> int:
    """Of the low-rank updates: rank x (inputs + outputs) of each adapted linear layer."""
    if lora is None:
        return 0
    width = 4 * shape.hidden + 2 * (shape.query_size + shape.kv_size)
    if lora.targets == "all-linear":
        width += 3 * (shape.hidden + shape.intermediate)
    return shape.layers * lora.rank * width


def trained_parameters(shape: ModelShape, lora: LoraSection | None) -> int:
    """Of all that have a gradient and moments."""
    if lora is None:
        return shape.parameters
    trained = adapter_parameters(shape, lora)
    if lora.train_embeddings_and_norms:
        norms = shape.layers * (2 * shape.hidden + 2 * shape.head_size * shape.head_norms) + shape.hidden
        trained += shape.embedding_parameters + norms
    return trained
