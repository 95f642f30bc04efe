"""How and where a recipe is computed. Nothing here decides a result, so none of it is in a fingerprint."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from longrecipe_core.recipe.sections import Section

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")]
Parallel = Literal["local", "ulysses", "ring", "usp", "dist-flash"]


class LaunchSection(Section):
    """How and where it is computed; never part of a fingerprint."""

    processes: int = Field(1, ge=1, description="training processes (ranks), one per GPU, over all machines")
    machines: int = Field(1, ge=1, description="machines that share the ranks evenly; see docs/launching.md")
    micro_batch: int = Field(1, ge=1, description="sequences per forward pass and rank, or group of ranks")
    parallel: Parallel = Field(
        "local", description="local: each rank its own sequences; else how ranks share one, see docs/parallelism.md"
    )
    sequence_degree: int | None = Field(
        None, ge=2, description="ranks that share a sequence; all of them when not given; not for local"
    )
    ulysses_degree: int | None = Field(
        None, ge=1, description="usp: ranks that split heads, the rest of the degree is the ring; 2 when not given"
    )
    sharding: Literal["none", "fsdp2", "zero3"] = Field(
        "none", description="none: DDP, the whole model on each rank; shards of weights and optimizer over all ranks"
    )
    cpu_offload: bool = Field(False, description="fsdp2, zero3: weights and optimizer wait in host memory")
    threads: int | None = Field(None, ge=1, description="CPU threads per process; cores / processes when not given")
    workers: int | None = Field(
        None,
        ge=1,
        description="processes that tokenize and draw the index; one per core, 8 at most, if not given. CPUs of a Ray "
        "cluster that is started here, and the least number of shards at a time on another",
    )
    engine: Literal["processes", "ray"] | None = Field(
        None, description="what runs the workers; `LONGRECIPE_ENGINE`, else processes, when not given"
    )
    ray_address: str | None = Field(
        None, description="HOST:PORT of the Ray cluster; `RAY_ADDRESS`, else one is started here, when not given"
    )
    score_devices: tuple[Device, Device] = Field(
        ("auto", "auto"), description="torch devices of the base and the extended model in stage score"
    )
    activation_checkpointing: Literal["none", "full", "selective", "offload"] = Field(
        "none",
        description="full: recompute a layer in backward; selective: all of it but attention; offload: as full, with "
        "the layers' inputs in host memory",
    )
    mlp_tile: int | None = Field(None, ge=1, description="tokens that pass an MLP at a time; all when not given")
    loss_chunk: int = Field(512, ge=1, description="tokens whose logits exist at one time")
    checkpoint_every: int = Field(50, ge=1, description="optimizer steps between training checkpoints")
    checkpoints_kept: int = Field(2, ge=1, description="newest training checkpoints that are kept in the store")
    restarts: int = Field(
        3, ge=0, description="times that a job is started again which was preempted or killed by a signal"
    )
    preemption_grace: int = Field(
        60, ge=1, description="seconds that a job told to end by SIGTERM has to save its state before it is killed"
    )
    gpu_limit: str | None = Field(
        None,
        min_length=1,
        description="global concurrency limit of Prefect's: a training rank, an evaluation and a device that scores "
        "hold a slot each, see docs/run-page.md",
    )
    collective_timeout: int = Field(1800, ge=10, description="seconds after which a hung rank is an error")

    @property
    def sequence_ranks(self) -> int:
        """Ranks that share one sequence; 1 for `local`."""
        return 1 if self.parallel == "local" else self.sequence_degree or self.processes

    @property
    def head_ranks(self) -> int:
        """Ranks that attention heads are split over, which must divide the query heads."""
        if self.parallel == "usp":
            return self.ulysses_degree or 2
        return self.sequence_ranks if self.parallel == "ulysses" else 1

    @model_validator(mode="after")
    def _parallel(self) -> Self:
        if self.parallel == "local" and self.sequence_degree is not None:
            raise ValueError(f"sequence_degree {self.sequence_degree} has no meaning with parallel local")
        if self.parallel != "usp" and self.ulysses_degree is not None:
            raise ValueError(f"ulysses_degree {self.ulysses_degree} has no meaning with parallel {self.parallel}")
        if self.processes % self.sequence_ranks:
            raise ValueError(f"sequence_degree {self.sequence_ranks} must divide processes {self.processes}")
        if self.parallel != "local" and self.sequence_ranks < 2:
            raise ValueError(
                f"parallel {self.parallel} shares a sequence among ranks, and there is one: allowed with processes 1: "
                f"local"
            )
        if self.sequence_ranks % self.head_ranks:
            raise ValueError(
                f"ulysses_degree {self.head_ranks} must divide the {self.sequence_ranks} ranks that share a sequence"
            )
        return self

    @model_validator(mode="after")
    def _machines(self) -> Self:
        if self.processes % self.machines:
            raise ValueError(f"machines {self.machines} must divide processes {self.processes}")
        if self.cpu_offload and self.sharding == "none":
            raise ValueError("cpu_offload goes with sharding fsdp2 or zero3; sharding is none")
        return self
