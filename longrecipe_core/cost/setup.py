"""How one training is computed, as far as its cost depends on it."""

from dataclasses import dataclass
from typing import Literal, Self

from longrecipe_core.recipe import LaunchSection, LoraSection, TrainingSection


@dataclass(frozen=True)
class Setup:
    """One training: sequences of `length` tokens on `ranks` GPUs, of which `sequence_ranks` share a sequence."""

    length: int
    precision: Literal["fp32", "bf16"] = "bf16"
    ranks: int = 1
    parallel: Literal["local", "ulysses", "ring", "usp", "dist-flash"] = "local"
    sequence_ranks: int = 1
    head_ranks: int = 1
    sharding: Literal["none", "fsdp2", "zero3"] = "none"
    cpu_offload: bool = False
    checkpointing: Literal["none", "full", "selective", "offload"] = "none"
    micro_batch: int = 1
    micro_batches: int = 1
    """Per rank and optimizer step, whose gradients are added up."""
    mlp_tile: int | None = None
    loss_chunk: int | None = 512
    """Tokens whose logits exist at one time; None: all."""
    lora: LoraSection | None = None
    logit_bytes: int | None = None
    """Bytes per logit that exists; None: as in our own chunked loss."""
    pure_bf16: bool = False
    """DeepSpeed's own bf16, of the paper's runs: bf16 weights beside fp32 ones. Ours is autocast over fp32 weights."""

    @classmethod
    def of(cls, launch: LaunchSection, training: TrainingSection, length: int) -> Self:
        """What a recipe asks for."""
        together = launch.processes // launch.sequence_ranks * launch.micro_batch
        return cls(
            length=length,
            precision=training.precision,
            ranks=launch.processes,
            parallel=launch.parallel,
            sequence_ranks=launch.sequence_ranks,
            head_ranks=launch.head_ranks,
            sharding=launch.sharding,
            cpu_offload=launch.cpu_offload,
            checkpointing=launch.activation_checkpointing,
            micro_batch=launch.micro_batch,
            micro_batches=training.global_batch // together,
            mlp_tile=launch.mlp_tile,
            loss_chunk=launch.loss_chunk,
            lora=training.lora,
        )

    @property
    def local_tokens(self) -> int:
        """Tokens that one rank computes at a time; a sequence is padded to a multiple of its ranks."""
        return self.micro_batch * -(-self.length // self.sequence_ranks)

    @property
    def replicas(self) -> int:
        """Groups of ranks that each compute sequences of their own."""
        return self.ranks // self.sequence_ranks

    @property
    def width(self) -> int:
        """Bytes of a matrix product's result."""
        return 2 if self.precision == "bf16" else 4

    @property
    def weight_width(self) -> int:
        """Bytes of a weight, and of the residual stream, which has the embedding's type."""
        return 2 if self.pure_bf16 else 4
