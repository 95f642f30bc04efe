import pytest

from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.comparison import Scores, scores, shortfalls
from longrecipe_core.recipe import PromotionSection

TOLERANCE = PromotionSection(short=0.02, long=0.05, passkey=0.1)


def row(measure: str, start: int, end: int, value: float, count: int, model: str = "new") -> dict:
    return {"model": model, "measure": measure, "start": start, "end": end, "value": value, "count": count}


ROWS = [
    row("nll", 0, 100, 4.0, 30),
    row("nll", 100, 200, 3.0, 10),
    row("nll", 200, 300, 2.0, 10),
    row("nll", 300, 400, 1.0, 40),
    row("nll", 0, 100, 9.0, 30, "other"),
    row("passkey", 50, 50, 1.0, 20),
    row("passkey", 350, 350, 0.5, 20),
]


@pytest.mark.parametrize(
    ("window", "short", "long"),
    [
        # (4·30 + 3·10) / 40 and (2·10 + 1·40) / 50, written out.
        (200, 3.75, 1.2),
        (150, 3.75, 1.2),  # the bucket that the window ends in
        (50, 4.0, 90 / 60),
        (400, 210 / 90, None),
    ],
)
def test_scores_are_means_over_tokens_on_both_sides_of_the_window(window, short, long):
    found = scores(ROWS, "new", window)
    assert found.short == pytest.approx(short)
    assert found.long == (long if long is None else pytest.approx(long))
    assert found.passkey == pytest.approx(0.75)


def test_another_tokenizer_changes_the_unit_of_losses_only():
    found = scores(ROWS, "new", 200, nll_scale=0.5)
    assert (found.short, found.long, found.passkey) == pytest.approx((1.875, 0.6, 0.75))


def test_a_model_without_rows_is_an_error():
    with pytest.raises(EvaluationError, match="no loss of 'third'"):
        scores(ROWS, "third", 200)


@pytest.mark.parametrize(
    ("new", "keys"),
    [
        (Scores(short=1.0, long=2.0, passkey=0.9), []),
        (Scores(short=0.5, long=1.0, passkey=1.0), []),
        (Scores(short=1.019, long=2.049, passkey=0.81), []),
        (Scores(short=1.021, long=1.0, passkey=1.0), ["promotion.short"]),
        (Scores(short=0.5, long=2.051, passkey=1.0), ["promotion.long"]),
        (Scores(short=0.5, long=1.0, passkey=0.79), ["promotion.passkey"]),
        (Scores(short=3.0, long=3.0, passkey=0.0), ["promotion.short", "promotion.long", "promotion.passkey"]),
        (Scores(short=0.5), []),  # what one of the two lacks can't be compared
    ],
)
def test_worse_is_what_exceeds_its_own_tolerance(new, keys):
    lines = shortfalls(new, Scores(short=1.0, long=2.0, passkey=0.9), TOLERANCE)
    assert [next(word for word in line.split() if word.startswith("promotion.")) for line in lines] == keys
