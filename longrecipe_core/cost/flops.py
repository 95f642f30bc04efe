"""Arithmetic of training, as `training.flops` counts it, with what is computed again in backward."""

from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import ModelShape
from longrecipe_core.cost.trained import adapter_parameters


def model_flops_per_token(shape: ModelShape, length: int) -> float:
    """Forward and backward, without recomputation: 6 per parameter, the look-up aside, and causal attention.

    Chowdhery et al. 2022 (PaLM), appendix B, with half of the attention square.
    """
    return 6 * (shape.parameters - shape.looked_up_parameters) + 3 * attention_flops_per_token(shape, length)


def attention_flops_per_token(shape: ModelShape, length: int) -> float:
    """Forward of all layers' causal attention: scores and their product with the values, over half of the square."""
    return 2.0 * shape.layers * shape.query_size * length


def recomputed_flops_per_token(shape: ModelShape, setup: Setup) -> float:
    """The second forward of the layers that activation checkpointing asks for; `selective` saves attention's output."""
    if setup.checkpointing == "none":
        again = 0.0
    else:
        again = 2.0 * shape.layers * shape.layer_parameters
        if setup.checkpointing != "selective":
            again += attention_flops_per_token(shape, setup.length)
    if setup.mlp_tile is not None:  # a tile's MLP is computed again in its backward, whatever the layer does
        again += 2.0 * shape.layers * 3 * shape.hidden * shape.intermediate
    return again


def training_flops_per_token(shape: ModelShape, setup: Setup) -> float:
    """All that is computed. With LoRA the frozen weights have no gradient of their own, a third less."""
    flops = model_flops_per_token(shape, setup.length) + recomputed_flops_per_token(shape, setup)
    if setup.lora is not None:
        head = shape.embedding_parameters * (1 if shape.tied and setup.lora.train_embeddings_and_norms else 0)
        frozen = shape.parameters - shape.looked_up_parameters - head
        flops += 6 * adapter_parameters(shape, setup.lora) - 2 * frozen
    return flops
