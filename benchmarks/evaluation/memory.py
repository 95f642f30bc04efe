"""Peak memory of an evaluation of long documents with a large vocabulary, against whole logits.

`python -m benchmarks.evaluation.memory ours|plain LENGTH` is a process of its own, for its memory.
"""

import sys

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.evaluation.plain import plain_nll
from benchmarks.figures import Figure, Report
from benchmarks.train.child import answer, ask
from benchmarks.train.models import SEED, large_vocabulary
from benchmarks.train.peak import peak_mb, reset_peak
from longrecipe_core.evaluation.nll import token_nll

LENGTH, SMALL_LENGTH = 16_384, 2048
CHUNK = 512


def measure(report: Report, small: bool) -> None:
    """`eval_peak_memory_ratio`: what the evaluation needs above what the process has before it."""
    length = SMALL_LENGTH if small else LENGTH
    ours, plain = (ask("benchmarks.evaluation.memory", side, str(length)) for side in ("ours", "plain"))
    detail = {"length": length, "ours": ours, "plain": plain}
    report.add(Figure("eval_peak_memory_ratio", ours["mb"] / plain["mb"], "ratio", "<= 0.2", detail))
    report.add(Figure("eval_peak_memory_mb", ours["mb"], "MB"))


def peak_of(side: str, length: int) -> dict[str, float]:
    """MB above the resident size before the only document, that size, and the mean loss."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(large_vocabulary()).eval()
    document = np.random.default_rng(SEED).integers(model.config.vocab_size, size=(1, length))
    before = reset_peak()
    if side == "ours":
        nll = token_nll(model, document, np.full(1, length), bf16=False, chunk=CHUNK)
    else:
        nll = plain_nll(model, document, bf16=False)
    return {"mb": peak_mb() - before, "before_mb": before, "nll": float(nll.mean())}


if __name__ == "__main__":
    answer(peak_of(sys.argv[1], int(sys.argv[2])))
