"""Needles and RULER's tasks, asked of a model: rows with scores of 0 to 100."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.ruler import Haystack, Needles, Prompt, Task, prompts, ruler_task, score
from longrecipe_core.recipe import EvaluationSection, NeedleSection, RulerSection

Answer = Callable[[Sequence[Prompt]], list[str]]


@dataclass(frozen=True)
class Asked:
    """One cell: a task at a length, and at a depth where that is given."""

    task: Task
    depth: float | None
    haystack: str | None
    samples: int


def ask(
    measure: str, task_name: str, cells: Sequence[Asked], encoder: Encoder, length: int, seed: int, answer: Answer
) -> list[Row]:
    """One row per cell: mean score, standard error over samples, their number.

    Raises:
        EvaluationError: A prompt doesn't fit the length.
    """
    asked = [list(prompts(cell.task, encoder, length, cell.samples, seed)) for cell in cells]
    answers = iter(answer([prompt for part in asked for prompt in part]))
    rows = []
    for cell, part in zip(cells, asked, strict=True):
        scores = np.array([score(task_name, next(answers), prompt.answers) for prompt in part])
        rows.append(
            {
                "measure": measure,
                "task": task_name,
                "length": length,
                "depth": cell.depth,
                "haystack": cell.haystack,
                "value": float(scores.mean()),
                "standard_error": float(scores.std(ddof=1) / scores.size**0.5) if scores.size > 1 else float("nan"),
                "count": scores.size,
            }
        )
    return rows


def needle_cells(task: str, section: NeedleSection, haystack: Haystack | None) -> list[Asked]:
    """One cell per depth; a single one for several needles that are asked for, whose depths are drawn."""
    keys, values, queries = {
        "single": (1, 1, 1),
        "multikey": (section.distractors + 1, 1, 1),
        "multivalue": (1, 4, 1),
        "multiquery": (4, 1, 4),
    }[task]
    asked = Needles(f"needle {task}", haystack or "noise", keys=keys, values=values, queries=queries)
    depths = section.depths if queries * values == 1 else (None,)
    # One name, and so the same draws for every depth but for the needle's place.
    return [Asked(replace(asked, depth=depth), depth, section.haystack, section.trials) for depth in depths]


def ruler_cells(task: str, section: RulerSection, haystack: Haystack) -> list[Asked]:
    """The one cell of a task."""
    made = ruler_task(task, section, haystack)
    text = made.text if isinstance(made, Needles) else None
    return [Asked(made, None, "documents" if isinstance(text, Haystack) else text, section.samples)]


def tasks(section: EvaluationSection, haystack: Callable[[], Haystack]) -> Iterator[tuple[str, str, int, list[Asked]]]:
    """Measure, task, length and cells of all that is asked; `haystack` is called where documents are needed."""
    if section.needle is not None:
        text = haystack() if section.needle.haystack == "documents" else None
        for task in section.needle.tasks:
            for length in section.needle.lengths:
                yield "needle", task, length, needle_cells(task, section.needle, text)
    if section.ruler is not None:
        for name in section.ruler.tasks:
            for length in section.ruler.lengths:
                yield "ruler", name, length, ruler_cells(name, section.ruler, haystack())


def longest(section: EvaluationSection) -> int:
    """Tokens of the longest prompt; 0 where nothing is asked."""
    return max((max(part.lengths) for part in (section.needle, section.ruler) if part is not None), default=0)


def check_prompts(section: EvaluationSection, encoder: Encoder, haystack: Callable[[], Haystack]) -> None:
    """Raise EvaluationError where a length is too short for a task, or a file of questions isn't what it should be."""
    shortest = {"needle": section.needle, "ruler": section.ruler}
    for measure, _, length, cells in tasks(section, haystack):
        part = shortest[measure]
        if part is not None and length == min(part.lengths):
            for cell in cells:
                next(prompts(cell.task, encoder, length, 1, 0))
