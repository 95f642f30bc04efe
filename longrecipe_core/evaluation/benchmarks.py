"""Public benchmarks: EleutherAI's lm-eval asks a model that is loaded already.

Needs the extra `eval`; https://github.com/EleutherAI/lm-evaluation-harness
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.benchmark_tasks import KEY, BenchmarkTasks, quiet
from longrecipe_core.evaluation.measurements import Row

Metrics = dict[str, Any]
"""What lm-eval finds of one task: `acc,none`, `acc_stderr,none`, …, and `sample_len`."""
Note = Callable[[str, Callable[[], list[Row]]], list[Row]]
"""Keeps what is found of a part of a group, by its name; a kill then costs one part, not the group."""
BOOTSTRAPS = 1000
"""For standard errors of metrics that are not a mean; those of means are computed from their samples."""


def benchmark_rows(
    harness: Callable[[], Any],
    tasks: BenchmarkTasks,
    name: str,
    note: Note = lambda part, measure: measure(),
) -> list[Row]:
    """Rows of a task, or of a group and of all its tasks; one for each metric.

    `harness` gives lm-eval's model, and is asked for it only when something has to be measured.

    Raises:
        EvaluationError: The task can't be loaded, or its answers don't fit the model's window.
    """
    loaded = tasks.load(name)
    leaves, groups = loaded["tasks"], loaded.get("groups") or {}
    found: dict[str, Metrics] = {}
    for leaf, task in leaves.items():

        def measure(leaf: str = leaf, task: Any = task) -> list[Row]:
            return [_measured(harness(), tasks, leaf, task)]

        (found[leaf],) = note(leaf, measure) if groups or len(leaves) > 1 else measure()
    aggregated = {group: dict(entry.aggregate(found)) for group, entry in groups.items()}
    return [row for one, metrics in (aggregated | found).items() for row in _rows(one, metrics)]


def harness(model: Any, tokenizer: Any, *, bf16: bool, batch_size: int) -> Any:
    """lm-eval's own reader of a transformers model, with the model's window and its stock attention."""
    from lm_eval.models.huggingface import HFLM

    with quiet():
        return HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            max_length=model.config.max_position_embeddings,
            batch_size=batch_size,
            mixed_precision_dtype="bfloat16" if bf16 else None,
            softmax_dtype="float32",  # else log probabilities would have the logits' bf16
        )


def _measured(lm: Any, tasks: BenchmarkTasks, name: str, task: Any) -> Metrics:
    """Numbers of one task, set up as `lm_eval.simple_evaluate` does.

    That function itself would also describe the machine, with `pip list` and the like, for seconds each time.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.utils import set_torch_seed

    section, seed = tasks.section, tasks.seed
    task_fewshot = task.get_config("num_fewshot")
    if section.fewshot is not None and task_fewshot != 0:  # a task that says 0 can't take any
        task.set_config(key="num_fewshot", value=section.fewshot)
    elif task_fewshot is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=seed)
    if task.get_config("output_type") == "generate_until":
        if section.max_gen_toks is not None:
            task.set_config(key="generation_kwargs", value={"max_gen_toks": section.max_gen_toks}, update=True)
        _check_room(lm, name, task)
    np.random.seed(seed % 2**32)
    set_torch_seed(seed)
    with quiet():
        results = evaluate(
            lm=lm,
            task_dict={"tasks": {name: task}},
            limit=section.limit,
            bootstrap_iters=BOOTSTRAPS,
            log_samples=False,
            confirm_run_unsafe_code=section.confirm_unsafe,
        )
    return {key: _plain(value) for key, value in results["results"][name].items() if _plain(value) is not None}


def _check_room(lm: Any, name: str, task: Any) -> None:
    from lm_eval.models.utils import normalize_gen_kwargs

    wanted = normalize_gen_kwargs(task.get_config("generation_kwargs") or {}, lm.max_gen_toks)["max_gen_toks"]
    if wanted >= lm.max_length:
        raise EvaluationError(
            f"{KEY}: {name} generates up to {wanted} tokens, and the model's window of {lm.max_length} leaves none for "
            f"the question; {KEY}.max_gen_toks sets fewer"
        )


def _plain(value: Any) -> float | str | None:
    """A number, or text such as `N/A`, as JSON has it; None for what is neither."""
    if isinstance(value, str):
        return value
    return float(value) if isinstance(value, int | float | np.number) else None


def _rows(task: str, metrics: Metrics) -> list[Row]:
    rows: list[Row] = []
    counts: dict[str, int] = metrics.get("sample_count") or {}  # of a group only
    # lm-eval's RULER counts the samples of all lengths together, of which each has as many.
    lengths = sum(key.partition(",")[0].isdecimal() and value != -1 for key, value in metrics.items())
    for key, value in metrics.items():
        name, separator, chosen = key.partition(",")
        if not separator or name.endswith("_stderr") or isinstance(value, str):
            continue
        length = int(name) if name.isdecimal() else None
        if length is not None and value == -1:
            continue  # lm-eval's RULER: no prompt of this length
        error = metrics.get(f"{name}_stderr,{chosen}")
        rows.append(
            {
                "measure": "benchmark",
                "task": task,
                "metric": name if chosen == "none" else key,
                "value": float(value),
                "standard_error": error if isinstance(error, float) else float("nan"),
                "count": int(counts[key] if key in counts else metrics["sample_len"]) // (lengths if length else 1),
                "length": length,
            }
        )
    return rows
