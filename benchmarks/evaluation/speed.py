"""NLL of documents by our evaluation, against the model's forward pass and torch's cross entropy."""

import os
from functools import partial

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.evaluation.plain import plain_nll
from benchmarks.figures import REPEATS, Figure, Report, interleaved, median_ratio
from benchmarks.train.models import SEED, smollm2
from longrecipe_core.evaluation.nll import token_nll

LENGTHS = (512, 2048)
CHUNK = 512  # of the recipe's launch.loss_chunk


def measure(report: Report, small: bool) -> None:
    """`eval_vs_forward`, the lowest of two lengths and two precisions, and what rounding the logits would cost."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(smollm2(2 if small else 30)).eval()
    with torch.no_grad():
        # Logits as spread as a trained model's (standard deviation 3), which random weights of 0.02 don't have.
        model.get_input_embeddings().weight.mul_(3 / (0.02 * model.config.hidden_size**0.5))
    rng = np.random.default_rng(SEED)
    ratios = {}
    for bf16 in (False, True):
        for length in LENGTHS[:1] if small else LENGTHS:
            documents = rng.integers(model.config.vocab_size, size=(1, length))
            lengths = np.full(1, length)
            ours = partial(token_nll, model, documents, lengths, bf16=bf16, chunk=CHUNK)
            plain = partial(plain_nll, model, documents, bf16=bf16)
            same = partial(plain_nll, model, documents, bf16=bf16, head_in_fp32=True)
            exact, found, rounded = same(), ours(), plain()  # untimed: allocators grow
            np.testing.assert_allclose(found, exact, atol=1e-4)
            seconds = interleaved(ours, plain, *([same] if bf16 else []), repeats=2 if small else REPEATS)
            name = f"{'bf16' if bf16 else 'fp32'}_{length}"
            ratios[name] = median_ratio(seconds[1], seconds[0])
            detail = {"ours_seconds": seconds[0], "plain_seconds": seconds[1], "tokens": length, "chunk": CHUNK}
            report.add(Figure(f"eval_vs_forward_{name}", ratios[name], "x", None, detail))
            if bf16:
                same_ratio = median_ratio(seconds[2], seconds[0])
                same_detail = {"ours_seconds": seconds[0], "plain_seconds": seconds[2]}
                report.add(Figure(f"eval_vs_forward_{name}_head_fp32", same_ratio, "x", None, same_detail))
    error = np.abs(rounded - exact)
    worst = {"of_the_mean": abs(float(rounded.mean() - exact.mean())), "largest": float(error.max())}
    report.add(Figure("eval_bf16_head_error", float(error.mean()), "nats", None, worst))
    lowest = min(ratios, key=lambda name: ratios[name])
    report.add(Figure("eval_vs_forward", ratios[lowest], "x", ">= 0.97", {"lowest": lowest}))
