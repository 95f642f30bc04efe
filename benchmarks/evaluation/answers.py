"""How many needles a minute are asked: prompts in batches with a cache, no target."""

import os
import statistics

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.figures import REPEATS, Figure, Report, interleaved, median_ratio
from benchmarks.train.models import SEED, smollm2
from longrecipe_core.evaluation.greedy import greedy_answers
from longrecipe_core.evaluation.ruler.prompts import Prompt

LENGTH, NEW_TOKENS, SAMPLES = 512, 16, 8


class _Ids:
    """What `greedy_answers` asks of a tokenizer; no text is needed here."""

    pad_token_id, eos_token_id, bos_token_id = 0, None, None

    @staticmethod
    def decode(ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


def measure(report: Report, small: bool) -> None:
    """`needle_samples_per_minute`, and `needle_batch_speed`, which is one batch against a prompt at a time."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(smollm2(2 if small else 30)).eval()
    model.generation_config.eos_token_id = None
    rng = np.random.default_rng(SEED)
    # Prompts fill their length up to the last sentence, so they differ by some tokens.
    prompts = [
        Prompt(rng.integers(model.config.vocab_size, size=LENGTH - NEW_TOKENS - n, dtype=np.int32), ("",), NEW_TOKENS)
        for n in range(SAMPLES)
    ]

    def batch() -> list[str]:
        return greedy_answers(model, _Ids, prompts, bf16=False)

    def one_at_a_time() -> list[str]:
        return [answer for prompt in prompts for answer in greedy_answers(model, _Ids, [prompt], bf16=False)]

    batch()  # untimed
    together, alone = interleaved(batch, one_at_a_time, repeats=2 if small else REPEATS)
    detail = {"length": LENGTH, "new_tokens": NEW_TOKENS, "samples": SAMPLES, "batch": together, "alone": alone}
    per_minute = 60 * SAMPLES / statistics.median(together)
    report.add(Figure("needle_samples_per_minute", per_minute, "1/min", None, detail))
    report.add(Figure("needle_batch_speed", median_ratio(alone, together), "x", None, detail))
