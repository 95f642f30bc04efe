"""What is measured of every model. A measure that is not given is not taken, and is in no fingerprint."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from longrecipe_core.recipe.benchmarks import BenchmarksSection
from longrecipe_core.recipe.copying import CopyingSection
from longrecipe_core.recipe.evaluated_models import EvaluatedStage, OtherModelSection, check_names, check_stages
from longrecipe_core.recipe.sections import Fraction, RopeSection, Section

Lengths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
NeedleTask = Literal["single", "multikey", "multivalue", "multiquery"]
RulerTask = Literal[
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
]
SYNTHETIC: tuple[RulerTask, ...] = tuple(name for name in get_args(RulerTask) if not name.startswith("qa"))


class PasskeySection(Section):
    """A five-digit key hidden in filler text, asked for at the end."""

    distances: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, description="tokens between key and question"
    )
    trials: int = Field(20, ge=1, description="samples per distance")


class NeedleSection(Section):
    """Sentences hidden in a long text, asked for at the end, by length and depth; see docs/evaluation.md."""

    lengths: Lengths = Field(description="tokens of prompt and answer together")
    depths: tuple[Fraction, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0),
        min_length=1,
        description="single, multikey: where the needle that is asked for stands; 0 is the start of the text",
    )
    tasks: tuple[NeedleTask, ...] = Field(
        ("single",),
        min_length=1,
        description="one needle; one beside distractors; four values of one key, or four keys, at random depths",
    )
    distractors: int = Field(3, ge=1, description="multikey: needles with other keys, at random depths")
    haystack: Literal["documents", "noise"] = Field(
        "documents", description="the text: validation documents, or five short sentences again and again"
    )
    trials: int = Field(10, ge=1, description="samples per length and depth")


class QuestionsSection(Section):
    """A file of questions, known by its content wherever it lies."""

    path: str = Field(min_length=1, description="local JSON file")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file's bytes")


class RulerSection(Section):
    """RULER (Hsieh et al. 2024, arXiv 2404.06654); see docs/evaluation.md for what differs."""

    lengths: Lengths = Field(description="tokens of prompt and answer together")
    tasks: tuple[RulerTask, ...] = Field(
        SYNTHETIC, min_length=1, description="qa_1 needs `squad`, qa_2 needs `hotpotqa`"
    )
    samples: int = Field(20, ge=1, description="per task and length; 500 in the paper")
    threshold: float = Field(
        85.6,
        ge=0,
        le=100,
        description="the effective length is the largest whose mean score is above; 85.6 is Llama-2-7B's at 4k",
    )
    squad: QuestionsSection | None = Field(None, description="qa_1: SQuAD 2.0, such as dev-v2.0.json")
    hotpotqa: QuestionsSection | None = Field(None, description="qa_2: HotpotQA, such as hotpot_dev_distractor_v1.json")

    @model_validator(mode="after")
    def _questions(self) -> Self:
        for task, key in (("qa_1", "squad"), ("qa_2", "hotpotqa")):
            if (task in self.tasks) != (getattr(self, key) is not None):
                raise ValueError(f"the task {task} and the file {key} go together; only one of them is given")
        return self


class LongPplSection(Section):
    """Perplexity of the tokens that only a long context makes likely (LongPPL, arXiv 2410.23771)."""

    short_length: int = Field(4096, ge=1, description="least tokens of the truncated context")
    step: int = Field(1024, ge=1, description="tokens that share one truncated context")
    difference: float = Field(
        2.0, description="nats: a key token's log probability rises by more with the long context"
    )
    likelihood: float = Field(-2.0, description="nats: and is above this with the long context")
    evaluator: Literal["base", "merged"] = Field(
        "base", description="the model of the run that finds the key tokens; only inside its own window can it"
    )


class ContextNllSection(Section):
    """NLL of the same tokens with contexts of several lengths, in sliding windows."""

    lengths: Lengths = Field(description="tokens of a window, those that are scored included")
    stride: int = Field(256, ge=1, description="tokens that are scored at the end of each window")

    @model_validator(mode="after")
    def _stride(self) -> Self:
        if self.stride >= min(self.lengths):
            raise ValueError(f"stride {self.stride} must be below the shortest of lengths {list(self.lengths)}")
        return self


class EvaluationSection(Section):
    """Loss by position, and the other measures where asked for."""

    documents: int = Field(32, ge=1, description="validation documents, at most")
    minimum_length: int | None = Field(
        None, ge=2, description="tokens that such a document must have; the target length when not given"
    )
    buckets: int = Field(8, ge=1, description="equal parts of the target length")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="arithmetic of the forward pass")
    passkey: PasskeySection | None = Field(None, description="also ask for a hidden key; not asked when not given")
    copying: CopyingSection | None = Field(None, description="also let it copy a span of random tokens")
    needle: NeedleSection | None = Field(None, description="also ask for needles in a haystack")
    ruler: RulerSection | None = Field(None, description="also take RULER's tasks")
    long_ppl: LongPplSection | None = Field(None, description="also measure LongPPL")
    context_nll: ContextNllSection | None = Field(None, description="also measure NLL by context length")
    benchmarks: BenchmarksSection | None = Field(None, description="also take public benchmarks, by lm-eval")

    stages: Annotated[tuple[EvaluatedStage, ...], Field(min_length=1)] | None = Field(
        None,
        description="which of base, rope (base, RoPE change only), extend, anneal, merge are measured; else all",
    )
    models: Annotated[tuple[OtherModelSection, ...], Field(min_length=1)] | None = Field(
        None, description="other models that are measured beside them"
    )

    @model_validator(mode="after")
    def _models(self) -> Self:
        check_stages(self.stages or ())
        check_names(self.models or ())
        return self

    def check_rope(self, rope: RopeSection) -> None:
        """Raise ValueError where the base with the RoPE change only is asked for, and there is no such change."""
        if rope.type == "none" and "rope" in (self.stages or ()):
            raise ValueError("evaluation.stages: rope is the base with the RoPE change only, but rope.type is none")

    def check_lengths(self, target_length: int) -> None:
        """Raise ValueError where something doesn't fit the target length."""
        for key in ("needle", "ruler", "context_nll"):
            part = getattr(self, key)
            if part is not None and max(part.lengths) > target_length:
                raise ValueError(
                    f"evaluation.{key}.lengths: {max(part.lengths)} is above context.target_length {target_length}"
                )
        if self.benchmarks is not None and max(self.benchmarks.lengths or (0,)) > target_length:
            raise ValueError(
                f"evaluation.benchmarks.lengths: {max(self.benchmarks.lengths or ())} is above context.target_length "
                f"{target_length}"
            )
        if self.passkey is not None and max(self.passkey.distances) >= target_length:
            raise ValueError(
                f"evaluation.passkey.distances: {max(self.passkey.distances)} is not below context.target_length "
                f"{target_length}"
            )
        if self.copying is not None and self.copying.length > target_length:
            raise ValueError(
                f"evaluation.copying: distance {max(self.copying.distances)} and two spans of {self.copying.span} make "
                f"a prompt of {self.copying.length} tokens, above context.target_length {target_length}"
            )
        if self.long_ppl is not None and self.long_ppl.short_length + self.long_ppl.step >= target_length:
            raise ValueError(
                f"evaluation.long_ppl: short_length {self.long_ppl.short_length} and step {self.long_ppl.step} leave "
                f"nothing of context.target_length {target_length} to compare; their sum must be below it"
            )
