"""A recipe's costs as text: a column per training stage, then a line per finding."""

from collections.abc import Callable, Collection, Iterator, Mapping

from longrecipe_core.cost.fitting import CARD, MOST_GPUS, options_that_fit
from longrecipe_core.cost.gpus import GPUS
from longrecipe_core.cost.shapes import ModelShape, shape_of_base, shape_of_model
from longrecipe_core.cost.trainings import Cost, cost, trainings
from longrecipe_core.errors import ModelError
from longrecipe_core.recipe import Recipe

GB = 1e9


def cost_lines(recipe: Recipe, stages: Collection[str], samples: Mapping[str, int] | None = None) -> Iterator[str]:
    """What the trainings among `stages` cost, or one line on why that can't be told.

    Args:
        recipe: What is trained, and under which launch options.
        stages: Those that will run.
        samples: Rows of `index` and `replay`, where they are made already.
    """
    try:
        shape = _shape(recipe)
    except ModelError as error:
        yield f"cost: {error}"
        return
    costs = [cost(training) for training in trainings(recipe, shape, samples) if training.stage in stages]
    if not costs:
        yield "cost: nothing is trained"
        return
    yield from _table(recipe, costs)
    found: dict[str, list[str]] = {}
    for each in costs:
        for finding in _findings(recipe, each):
            found.setdefault(finding, []).append(each.training.stage)
    for finding, named in found.items():
        yield f"{', '.join(named)}: {finding}"


def _shape(recipe: Recipe) -> ModelShape:
    if recipe.base is not None:
        return shape_of_base(recipe.base)
    assert recipe.model is not None
    return shape_of_model(recipe.model)


def _table(recipe: Recipe, costs: list[Cost]) -> Iterator[str]:
    number = recipe.launch.processes
    cell: dict[str, Callable[[Cost], str]] = {
        f"cost on {number} GPU{'s' if number > 1 else ''}": lambda c: c.training.stage,
        "tokens": lambda c: _scaled(c.training.tokens) + (" ?" if c.training.guessed else ""),
        "FLOPs": lambda c: f"{c.flops:.2e}",
        "memory per GPU": lambda c: _gigabytes(c.gpu_bytes),
        "host memory per GPU": lambda c: _gigabytes(c.host_bytes),
        "training checkpoint": lambda c: _gigabytes(c.checkpoint_bytes),
        "output": lambda c: _gigabytes(c.output_bytes),
    }
    rows = [[name, *(text(each) for each in costs)] for name, text in cell.items()]
    rows += [[f"hours on {gpu.name}", *(_hours(each.hours[gpu.name]) for each in costs)] for gpu in GPUS]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for name, *cells in rows:
        yield "  ".join(
            [name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(cells, widths[1:], strict=True))]
        )


def _findings(recipe: Recipe, each: Cost) -> Iterator[str]:
    training = each.training
    if training.guessed:
        yield "tokens are counted when the data are made; until then as many as in the paper"
    if each.gpu_bytes <= CARD:
        return
    needs = f"{_gigabytes(each.gpu_bytes)} do not fit a card of {_gigabytes(CARD)}; "
    found = options_that_fit(recipe, training)
    if found is None:
        yield f"{needs}no launch options are known with which it fits on {MOST_GPUS} of them or fewer"
        return
    changes, then = found
    flags = " ".join(f"--set launch.{key}={_yaml(value)}" for key, value in changes.items())
    yield f"{needs}{_gigabytes(then.gpu_bytes)}, with {_gigabytes(then.host_bytes)} of host memory, by {flags}"


def _yaml(value: object) -> str:
    return "null" if value is None else str(value).lower()


def _scaled(number: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.0f}"


def _gigabytes(number: float) -> str:
    if number < 0.1 * GB:
        return f"{number / 1e6:.2g} MB"
    return f"{number / GB:.0f} GB" if number >= 10 * GB else f"{number / GB:.2g} GB"


def _hours(hours: float) -> str:
    return "< 0.01" if hours < 0.01 else f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"
