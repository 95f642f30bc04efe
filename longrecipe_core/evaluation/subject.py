"""A model that is measured: loaded when something has to be measured of it, and not before."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longrecipe_core.corpus import load_tokenizer
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.evaluation.benchmark_tasks import BenchmarkTasks
from longrecipe_core.evaluation.benchmarks import benchmark_rows, harness
from longrecipe_core.evaluation.context_nll import context_nll
from longrecipe_core.evaluation.copying import Text, copied_shares, copying_row
from longrecipe_core.evaluation.greedy import greedy_answers
from longrecipe_core.evaluation.job import EvaluatedModel, EvaluationJob
from longrecipe_core.evaluation.long_ppl import key_tokens, perplexity_row
from longrecipe_core.evaluation.measurements import Answers, Measurements, Row
from longrecipe_core.evaluation.nll import Ints, bucket_rows, token_nll
from longrecipe_core.evaluation.paired import by_document
from longrecipe_core.evaluation.passkey import passkey_accuracy
from longrecipe_core.evaluation.retrieval import Asked, ask
from longrecipe_core.modeling import load_config, load_model, rope_config
from longrecipe_core.modeling.head import check_plain_head


class Subject:
    """One model of a job, and what is measured of it on the job's documents.

    `documents` are token ids `[documents, target_length]`, `lengths` their lengths.
    """

    def __init__(self, entry: EvaluatedModel, job: EvaluationJob, documents: Ints, lengths: Ints) -> None:
        self.name = entry.name
        self._entry, self._job = entry, job
        self._documents, self._lengths = documents, lengths
        self._bf16 = job.evaluation.precision == "bf16"

    @cached_property
    def model(self) -> Any:
        """On the GPU where there is one."""
        entry, job = self._entry, self._job
        config = load_config(entry.directory, job.trust_remote_code)
        if entry.rope is not None:
            window = None if entry.own_window else job.window
            config = rope_config(config, entry.rope, window=window, target_length=job.target_length)
        model = load_model(entry.directory, config=config, trust_remote_code=job.trust_remote_code)
        check_plain_head(model, str(entry.directory))
        self._generation = model.generation_config
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @cached_property
    def tokenizer(self) -> Any:
        """Its own."""
        return load_tokenizer(self._entry.directory, self._job.trust_remote_code)

    @cached_property
    def encoder(self) -> Encoder:
        """Of its tokenizer."""
        return Encoder(self.tokenizer)

    @cached_property
    def nll(self) -> npt.NDArray[np.float64]:
        """Of the documents; see `nll.token_nll`."""
        job = self._job
        return token_nll(self.model, self._documents, self._lengths, bf16=self._bf16, chunk=job.loss_chunk)

    @cached_property
    def key_tokens(self) -> npt.NDArray[np.bool_]:
        """That this model finds; see `long_ppl.key_tokens`."""
        section = self._job.evaluation.long_ppl
        assert section is not None
        return key_tokens(
            self.model, self._documents, self._lengths, section, bf16=self._bf16, chunk=self._job.loss_chunk
        )

    def nll_rows(self) -> list[Row]:
        """Loss by position; each row also has the `documents` that its mean is over, see `paired.by_document`."""
        rows = bucket_rows(self.nll, self._job.evaluation.buckets, self._job.target_length)
        return [
            {"measure": "nll", "documents": by_document(self.nll, int(row["start"]), int(row["end"]))} | row
            for row in rows
        ]

    def passkey_rows(self, distance: int) -> list[Row]:
        """Share of passkeys found."""
        section, job = self._job.evaluation.passkey, self._job
        assert section is not None
        accuracy = passkey_accuracy(
            self.model,
            self.tokenizer,
            distance,
            section.trials,
            target_length=job.target_length,
            seed=job.seed,
            bf16=self._bf16,
        )
        row = {
            "start": distance,
            "end": distance,
            "value": accuracy,
            "standard_error": (accuracy * (1 - accuracy) / section.trials) ** 0.5,
            "count": section.trials,
        }
        return [{"measure": "passkey"} | row]

    def copying_rows(self, distance: int) -> list[Row]:
        """Share of a span that is copied."""
        section, job = self._job.evaluation.copying, self._job
        assert section is not None
        text = Text.of(self._documents, self._lengths, self.tokenizer)
        shares = copied_shares(self.model, text, section, distance, seed=job.seed, bf16=self._bf16)
        return [{"measure": "copying"} | copying_row(shares, distance)]

    def long_ppl_rows(self, finder: str, keys: npt.NDArray[np.bool_]) -> list[Row]:
        """Perplexity of all tokens and of the key tokens, `[documents, target_length - 1]`, which `finder` found."""
        every = np.ones_like(self.nll, dtype=bool)
        length = self._job.target_length
        return [
            {"measure": "ppl", "length": length} | perplexity_row(self.nll, every),
            {"measure": "long_ppl", "task": f"key tokens of {finder}", "length": length}
            | perplexity_row(self.nll, keys),
        ]

    def context_rows(self, length: int) -> list[Row]:
        """Loss of the same tokens with a context of that length."""
        section = self._job.evaluation.context_nll
        assert section is not None
        found = context_nll(
            self.model, self._documents, self._lengths, length, section, bf16=self._bf16, chunk=self._job.loss_chunk
        )
        return [{"measure": "context_nll", "length": length} | found]

    def ask_rows(self, measure: str, task: str, length: int, cells: Sequence[Asked], noted: Answers) -> list[Row]:
        """Scores of greedy answers; those that are `noted` are not asked for again."""
        answer = partial(greedy_answers, self.model, self.tokenizer, bf16=self._bf16, noted=noted)
        return ask(measure, task, cells, self.encoder, length, self._job.seed, answer)

    @cached_property
    def harness(self) -> Any:
        """lm-eval's reader of the model."""
        model, section = self.model, self._job.evaluation.benchmarks
        assert section is not None
        model.generation_config = self._generation  # as it came: other measures may have set it aside
        # A tokenizer of its own: lm-eval gives it a padding token.
        tokenizer = load_tokenizer(self._entry.directory, self._job.trust_remote_code)
        return harness(model, tokenizer, bf16=self._bf16, batch_size=section.batch_size)

    def benchmark_rows(self, task: str, tasks: BenchmarkTasks, found: Measurements) -> list[Row]:
        """What lm-eval finds of a task or group; the tasks of a group are noted one by one."""

        def note(part: str, measure: Callable[[], list[Row]]) -> list[Row]:
            return found.take((self.name, "benchmark part", f"{task}: {part}", None), measure)

        return benchmark_rows(lambda: self.harness, tasks, task, note)
