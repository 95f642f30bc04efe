"""The sections of a recipe. Every field says what it does, its unit and its bounds.

Fields that decide a stage's *result* feed its fingerprint (see `parts.py`); everything in `LaunchSection` only
decides how fast and where the same result is computed, and never does.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A frozen group of keys; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        field_title_generator=lambda name, _: name,  # forms show the keys as they stand in a recipe
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads yes, no, on and off as booleans, and pydantic would read those as 1 and 0."""
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, bool) for item in items):
            assert info.field_name is not None
            if _takes_numbers(cls.model_fields[info.field_name].annotation):
                raise ValueError(f"{value!r} is not allowed: Input should be a number, not true or false")
        return value


def _takes_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(_takes_numbers(part) for part in get_args(annotation))


class ModelSection(Section):
    """The pretrained model whose context window is extended."""

    path: str = Field(description="Hugging Face directory, fsspec URL of one, or hub id")
    revision: str | None = Field(None, description="hub branch, tag or commit; resolved to a commit")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")


class ContextSection(Section):
    """Lengths, in tokens (paper, section 4.2)."""

    target_length: int = Field(ge=2, description="the new context window")
    train_length: int = Field(ge=2, description="tokens per training sample; about 30 % of the target length")
    window: int | None = Field(None, ge=2, description="the base model's window; from its config when not given")

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if self.train_length > self.target_length:
            raise ValueError(
                f"train_length {self.train_length} is above target_length {self.target_length}; "
                f"allowed: 2..{self.target_length}"
            )
        return self


class RopeSection(Section):
    """How rotary positions reach the target length; baked into the config before the model is built."""

    type: Literal["none", "theta", "ntk", "linear", "yarn", "llama3"] = Field("ntk", description="RoPE change")
    theta: float | None = Field(None, gt=1, description="explicit base frequency, for type theta")
    factor: float | None = Field(None, ge=1, description="stretch; target length / window when not given")

    @model_validator(mode="after")
    def _needs(self) -> Self:
        if (self.type == "theta") != (self.theta is not None):
            raise ValueError(f"type theta and a theta go together; got type {self.type}, theta {self.theta}")
        if self.type in ("none", "theta") and self.factor is not None:
            raise ValueError(f"factor {self.factor} has no meaning with type {self.type}; allowed: null")
        return self


class SourceSection(Section):
    """One source of documents."""

    path: str = Field(
        description="file, directory, glob or fsspec URL; hub id for format hub; {stdlib} is Python's library"
    )
    format: Literal["text", "jsonl", "parquet", "arrow", "hub", "disk", "python-docstrings"] = Field(
        "text", description="disk: a directory of datasets' save_to_disk"
    )
    subset: str | None = Field(None, description="configuration name of a hub dataset")
    split: str = Field("train", description="split of a hub or disk dataset")
    revision: str | None = Field(None, description="hub branch, tag or commit; resolved to a commit")
    text_column: str = Field("text", description="column that holds a document's text")
    prompt_column: str | None = Field(None, description="with response_column: instruction data for annealing")
    response_column: str | None = Field(None, description="with prompt_column")
    ids_column: str | None = Field(None, description="column with token ids of *another* tokenizer; see tokenizer")
    tokenizer: str | None = Field(None, description="directory or hub id of the tokenizer that made ids_column")
    limit: int | None = Field(None, ge=1, description="read at most so many documents")
    bad_rows: Literal["error", "skip"] = Field(
        "error", description="what can't be read ends the stage, or is skipped and counted by reason"
    )
    longest_row: int = Field(
        16 << 20, ge=1, description="bytes; a longer row or text file is bad: tokenizing takes 130 times its memory"
    )

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.prompt_column is None) != (self.response_column is None):
            raise ValueError("prompt_column and response_column go together")
        if (self.ids_column is None) != (self.tokenizer is None):
            raise ValueError("ids_column and tokenizer go together")
        if self.ids_column is not None and self.prompt_column is not None:
            raise ValueError("ids_column and prompt_column exclude each other")
        if self.format in ("text", "python-docstrings") and self.ids_column is not None:
            raise ValueError(f"format {self.format} has no ids_column; allowed: jsonl, parquet, arrow, hub, disk")
        return self


class CorpusSourceSection(SourceSection):
    """A source of long documents, with its part in the mixture."""

    weight: float | None = Field(
        None, gt=0, description="share of the training samples, relative to the other sources' weights"
    )
    validation_share: Fraction | None = Field(
        None, description="in place of corpus.validation_share; 1 holds the source out, 0 trains on all of it"
    )


class UpsamplingSection(Section):
    """Length up-sampling inside each source, which keeps the mix of sources (Fu et al. 2024, arXiv 2402.10171)."""

    longer_than: int = Field(ge=1, description="tokens; documents above this are long")
    share: Fraction = Field(0.7, description="share of each source's samples that come from its long documents")


class CorpusSection(Section):
    """The long documents."""

    sources: tuple[CorpusSourceSection, ...] = Field(min_length=1, description="where the documents are")
    validation_share: Fraction = Field(
        0.05, description="share of documents, by the digest of their text, kept for evaluation only"
    )
    minimum_tokens: int | None = Field(None, ge=1, description="shorter documents are skipped and counted")
    maximum_tokens: int | None = Field(None, ge=1, description="longer documents are skipped and counted")
    deduplicate: Literal["none", "exact", "near"] = Field(
        "none", description="skip copies of an earlier text; near: also texts that are similar (MinHash)"
    )
    similarity: float = Field(
        0.8, gt=0, lt=1, description="near: Jaccard similarity of word 5-grams from which two texts are one"
    )
    upsampling: UpsamplingSection | None = Field(
        None, description="raise the share of long documents; sources without weights then keep their share of tokens"
    )

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        weights = [source.weight for source in self.sources]
        if None in weights and any(weight is not None for weight in weights):
            raise ValueError(f"sources have weights {weights}: give every source a weight, or none")
        least, most = self.minimum_tokens, self.maximum_tokens
        if least is not None and most is not None and least > most:
            raise ValueError(f"minimum_tokens {least} is above maximum_tokens {most}")
        return self


class SelectionSection(Section):
    """Which sentences are trained on (paper, section 4.1)."""

    strategy: Literal["impactful", "digits", "random", "none"] = Field(
        "digits",
        description="anchor sentences: those with an impactful token (see `score`), with a digit, each with "
        "probability 1/2; none: one run of text",
    )
    top_share: float = Field(
        0.2, gt=0, le=1, description="impactful: share of the token types seen by stage score that are anchors"
    )
    rank_by: Literal["share", "score"] = Field(
        "share",
        description="impactful: by how often a type is in the top where it stands, or by Eq. 3's sum, which grows with "
        "the type's frequency",
    )
    minimum_count: int = Field(5, ge=1, description="impactful: types seen less often are no anchors")


class PositionsSection(Section):
    """How position ids are spread over the target length (paper, section 4.2)."""

    strategy: Literal["full", "rpes", "pose", "longrecipe", "longrecipe-fixed", "gather", "cream"] = Field(
        "longrecipe", description="see docs/positions.md"
    )
    right_point: int = Field(8000, ge=1, description="longrecipe-fixed: tokens of the identity prefix")
    sentences_per_segment: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (1, 1), description="longrecipe, longrecipe-fixed, gather: sentences in a segment, [least, most]"
    )
    chunks: Annotated[int, Field(ge=2)] = Field(2, description="pose: chunks per sample")
    cream_sigma: float = Field(3.0, gt=0, description="cream: width of the Gaussian, in halves of the train length")
    cream_head: int | None = Field(
        None, ge=1, description="cream: tokens of a short head and tail; 4 × target / train length when not given"
    )
    cream_relativity: Fraction = Field(0.5, description="cream: share of samples whose head and tail are thirds")
    sentence_ends: str = Field(".!?\n", min_length=1, description="characters that end a sentence")

    @model_validator(mode="after")
    def _range(self) -> Self:
        least, most = self.sentences_per_segment
        if least > most:
            raise ValueError(f"sentences_per_segment [{least}, {most}]: the first must not be above the second")
        return self


class IndexSection(Section):
    """The training samples."""

    samples: int | None = Field(
        None,
        ge=1,
        description="samples in all; documents are used again with new draws; null: one per document",
    )


class LoraSection(Section):
    """Low-rank updates of frozen weights (LoRA), merged into them at the end (LongLoRA, arXiv 2309.12307)."""

    rank: int = Field(8, ge=1, description="of the updates; at most that of the weights")
    alpha: float = Field(16, gt=0, description="the updates are scaled by alpha / rank")
    targets: Literal["attention", "all-linear"] = Field(
        "attention", description="linear layers that get updates: those in attention, or those in the MLPs too"
    )
    train_embeddings_and_norms: bool = Field(True, description="they are small, and longer contexts need them")


class TrainingSection(Section):
    """One optimization (paper, section 5 and appendix); everything here changes the result."""

    learning_rate: float = Field(gt=0, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="linear and cosine end at zero")
    warmup_steps: int = Field(0, ge=0, description="steps of linear rise to the peak")
    steps: int | None = Field(None, ge=1, description="optimizer steps; from epochs when not given")
    epochs: int = Field(1, ge=1, description="passes over the samples, where steps is not given")
    global_batch: int = Field(96, ge=1, description="sequences per optimizer step, over all ranks")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="AdamW")
    epsilon: float = Field(1e-8, gt=0, description="AdamW")
    weight_decay: float = Field(0.1, ge=0, description="AdamW")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    precision: Literal["fp32", "bf16"] = Field(
        "bf16", description="bf16 is autocast over fp32 master weights and optimizer state"
    )
    lora: LoraSection | None = Field(
        None, description="train low-rank updates; all weights when not given; not for the base"
    )

    @model_validator(mode="after")
    def _warmup(self) -> Self:
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        return self


class ScoreSection(Section):
    """Impactful token analysis (paper, section 4.1, Eq. 3): what a longer context changes in the logits."""

    source: Literal["model", "warmup", "long-short"] = Field(
        "long-short",
        description="the extended model H': a checkpoint; a short full-length run; the base model itself, "
        "whose long context is then compared with a truncated one",
    )
    model: ModelSection | None = Field(None, description="model: the extended checkpoint")
    warmup: TrainingSection | None = Field(None, description="warmup: the short run, at the target length")
    documents: int = Field(64, ge=1, description="training documents that are scored, at most")
    length: int | None = Field(
        None,
        ge=2,
        description="tokens scored of each, and the least it must have; the base model's window if not given",
    )
    short_length: int | None = Field(
        None, ge=2, description="long-short: most tokens of the truncated context; an eighth of the length if not given"
    )
    top: float = Field(0.2, gt=0, lt=1, description="share of the vocabulary that counts as top at a position")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="arithmetic of the forward passes")

    @model_validator(mode="after")
    def _needs(self) -> Self:
        for name in ("model", "warmup"):
            if (self.source == name) != (getattr(self, name) is not None):
                given = "given" if getattr(self, name) is not None else "not given"
                raise ValueError(
                    f"source {name} and the section {name} go together; got source {self.source} and {name} {given}"
                )
        if self.warmup is not None and self.warmup.steps is None:
            raise ValueError("warmup.steps is missing: windows of the target length are drawn, so there are no epochs")
        short = self.short_length or max(2, (self.length or 0) // 8)
        if self.source == "long-short" and self.length is not None and short > self.length - 2:
            raise ValueError(
                f"short_length {short} leaves no token of length {self.length} with a longer context; "
                f"allowed: 2..{self.length - 2} and a length of 4 or more"
            )
        if self.source != "long-short" and self.short_length is not None:
            raise ValueError(f"short_length {self.short_length} has no meaning with source {self.source}")
        return self


class ReplaySection(Section):
    """Instruction data for annealing, packed to the train length (paper, section 4.3)."""

    sources: tuple[SourceSection, ...] = Field(min_length=1, description="prompt and response, or plain text")
    separator: str = Field("\n", description="text between a prompt and its response")
    loss_on_prompt: bool = Field(True, description="as the reference does")
    attention_across_samples: bool = Field(True, description="as the reference does")


class MergeSection(Section):
    """Weights of the average (paper, section 4.3)."""

    base_weight: float = Field(0.5, description="weight of the base model")
    trained_weight: float = Field(0.5, description="weight of the annealed model")
    dtype: Literal["base", "fp32", "bf16"] = Field(
        "base", description="of the merged weights; base: as in the base model"
    )

    @model_validator(mode="after")
    def _weights(self) -> Self:
        if self.base_weight == 0 and self.trained_weight == 0:
            raise ValueError("base_weight and trained_weight are both 0: nothing is left of the models")
        return self


class PromotionSection(Section):
    """How much worse than the present model a retrained one may be and still take its place (docs/retraining.md)."""

    short: float = Field(
        0.02, ge=0, description="nats per token: highest rise of the mean NLL inside the base model's window"
    )
    long: float = Field(0.02, ge=0, description="the same beyond the base model's window")
    passkey: Fraction = Field(
        0.05, description="greatest fall of the share of keys found, over all distances; where passkey is measured"
    )
