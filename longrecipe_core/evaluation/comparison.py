"""Whether a model is worse than another on the same documents."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from longrecipe_core.errors import EvaluationError
from longrecipe_core.recipe import PromotionSection


class Scores(BaseModel):
    """Mean NLL in nats per token, inside the base model's window and beyond it; share of passkeys found."""

    model_config = ConfigDict(frozen=True)

    short: float
    long: float | None = None
    passkey: float | None = None


def scores(rows: Sequence[dict[str, Any]], model: str, window: int, nll_scale: float = 1.0) -> Scores:
    """A model's scores from the rows of an evaluation (see `table.SCHEMA`).

    A bucket counts as inside the window when it starts there, so that each bucket counts once. Means are weighted by
    tokens, for passkey by trials; `nll_scale` turns the rows' nats per token into those of another tokenizer.

    Raises:
        EvaluationError: The rows have no loss of this model.
    """
    own = [row for row in rows if row["model"] == model]
    nll = [row for row in own if row["measure"] == "nll"]
    short = _mean([row for row in nll if row["start"] < window])
    long = _mean([row for row in nll if row["start"] >= window])
    if short is None:
        raise EvaluationError(f"the evaluation has no loss of {model!r} inside the window of {window} tokens")
    return Scores(
        short=short * nll_scale,
        long=None if long is None else long * nll_scale,
        passkey=_mean([row for row in own if row["measure"] == "passkey"]),
    )


def shortfalls(new: Scores, present: Scores, tolerance: PromotionSection) -> list[str]:
    """In what `new` is worse than `present` beyond the tolerance, one line each; [] when it may take its place.

    What only one of the two was measured on doesn't count.
    """
    lines = []
    for name, place, mine, other, most in (
        ("short", "inside the base model's window", new.short, present.short, tolerance.short),
        ("long", "beyond the base model's window", new.long, present.long, tolerance.long),
    ):
        if mine is not None and other is not None and mine - other > most:
            lines.append(
                f"mean NLL {place} {mine:.4f}, present {other:.4f}: higher by more than promotion.{name} {most:g}"
            )
    if new.passkey is not None and present.passkey is not None and present.passkey - new.passkey > tolerance.passkey:
        lines.append(
            f"passkeys found {new.passkey:.3f}, present {present.passkey:.3f}: lower by more than "
            f"promotion.passkey {tolerance.passkey:g}"
        )
    return lines


def _mean(rows: Sequence[dict[str, Any]]) -> float | None:
    count = sum(row["count"] for row in rows)
    return sum(row["value"] * row["count"] for row in rows) / count if count else None
