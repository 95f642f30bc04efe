"""Means over seeds and their tables, against plain numpy and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.over_seeds import STUDENT_T, Mean, over_seeds, paired
from longrecipe_core.evaluation.seeds_document import BEGIN, END, main, put_into
from longrecipe_core.evaluation.seeds_rows import full_row, part, read_tsv, short_loss, write_tsv
from longrecipe_core.evaluation.seeds_table import shown, tables

WINDOW = 8


def test_mean_and_standard_error():
    values = [2.0, 3.5, 3.0, 7.25]
    found = over_seeds(values)
    assert found.value == pytest.approx(np.mean(values))
    assert found.standard_error == pytest.approx(stats.sem(values))
    assert found.count == 4


def test_one_seed_has_no_error_and_shows_no_direction():
    found = over_seeds([3.0])
    assert (found.value, found.count) == (3.0, 1)
    assert math.isnan(found.standard_error)
    assert found.direction() == "one seed"
    with pytest.raises(EvaluationError, match="no training"):
        over_seeds([])


def test_the_interval_is_students():
    assert np.allclose(STUDENT_T, stats.t.ppf(0.975, np.arange(1, 31)), atol=6e-4)
    rng = np.random.default_rng(3)
    for count in (2, 3, 5, 30):
        values = list(rng.normal(0.4, 1.0, count))
        found = over_seeds(values)
        low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
        assert found.interval == pytest.approx((high - low) / 2, rel=1e-3)
        wanted = "higher" if low > 0 else "lower" if high < 0 else "within noise"
        assert found.direction() == wanted


def test_two_standard_errors_of_three_seeds_show_nothing():
    assert Mean(3.0, 1.0, 3).direction() == "within noise"
    assert Mean(-4.5, 1.0, 3).direction() == "lower"
    assert Mean(4.5, 1.0, 3).direction() == "higher"


def test_paired_differences_leave_out_what_the_seed_does_to_both():
    rng = np.random.default_rng(0)
    seed_effect, own = rng.normal(0, 10, 3), np.array([1.0, 1.1, 0.9])
    reference = {seed: float(value) for seed, value in zip((3, 1, 2), seed_effect, strict=True)}
    variant = {seed: float(value) for seed, value in zip((3, 1, 2), seed_effect + own, strict=True)}
    found = paired(variant, reference)
    assert found.value == pytest.approx(own.mean())
    assert found.standard_error == pytest.approx(stats.sem(own))
    with pytest.raises(EvaluationError, match=r"the same seeds; got \[1, 2\] and \[1, 3\]"):
        paired({1: 0.0, 2: 0.0}, {1: 0.0, 3: 0.0})


def rows():
    """Two variants, two seeds, buckets of four tokens up to 16, copying inside and beyond the window of 8."""
    made = [{"group": "references", "variant": "base", "measure": "window", "value": float(WINDOW)}]
    spent = (("tokens", 50.0), ("seconds", 1.0))

    def model(group, variant, seed, offset):
        names = {"group": group, "variant": variant, "seed": seed, "train_length": seed and 5}
        for at, start in enumerate((0, 4, 8, 12)):
            made.append(names | measured("nll", start, start + 4, 3 + at + offset, 10 * (at + 1)))
        for distance in (4, 12):
            made.append(names | measured("copying", distance, distance, offset / 10 + distance / 100, 6))
        if seed is not None:
            made.extend(
                names | {"measure": name, "value": value * seed ** (name == "seconds")} for name, value in spent
            )

    model("references", "base", None, 0.0)
    for seed in (1, 2):
        model("variants", "a", seed, 0.25 * seed)
        model("variants", "b", seed, 0.5 * seed)
    model("ablation", "c", 1, 2.0)
    return [full_row(row) for row in made]


def measured(measure, start, end, value, count):
    return {"measure": measure, "start": start, "end": end, "value": value, "standard_error": 0.125, "count": count}


def test_parts_are_means_by_count_on_both_sides_of_the_window():
    # Buckets of 10 and 20 tokens inside, of 30 and 40 beyond.
    assert part(rows(), "a", "nll", beyond=False) == pytest.approx({1: (10 * 3.25 + 20 * 4.25) / 30, 2: (35 + 90) / 30})
    assert part(rows(), "base", "nll", beyond=True) == pytest.approx({None: (30 * 5 + 40 * 6) / 70})
    assert part(rows(), "base", "copying", beyond=True) == pytest.approx({None: 0.12})
    assert part(rows(), "base", "copying", beyond=False) == pytest.approx({None: 0.04})
    assert part(rows(), "base", "passkey", beyond=False) == {}
    assert short_loss(rows(), "b", "base") == pytest.approx({1: 0.5, 2: 1.0})


def test_rows_survive_the_file(tmp_path):
    write_tsv(rows(), tmp_path / "rows.tsv")
    assert read_tsv(tmp_path / "rows.tsv") == rows()


def test_tables_say_what_the_rows_say():
    summary, nll, copying, differences, ablation = tables(rows(), "base", "a")
    by_variant = {row[0]: dict(zip(summary.head, row, strict=True)) for row in summary.rows}
    assert list(by_variant) == ["base", "a", "b"]
    values = np.array([0.5, 1.0])
    assert by_variant["b"]["short-context loss"] == (f"+{values.mean():.4f} ± {values.std(ddof=1) / 2**0.5:.4f}")
    assert by_variant["b"]["tokens trained"] == "50"
    assert by_variant["b"]["seconds"] == "1.5 ± 0.5"
    assert by_variant["base"]["tokens trained"] == by_variant["base"]["seeds"] == ""
    assert nll.head == ("variant", "0–3", "4–7", "8–11", "12–15")
    assert [row[0] for row in nll.rows] == ["base", "a", "b"]
    assert nll.rows[0][1:] == ("3.0000", "4.0000", "5.0000", "6.0000")
    assert copying.head == ("variant", "4", "12")
    # b - a is 0.25 and 0.5: mean 0.375, standard error 0.125, and with two seeds that shows nothing.
    ((name, inside, beyond, *_),) = differences.rows
    assert (name, inside, beyond) == ("b", *["+0.3750 ± 0.1250, within noise"] * 2)
    assert [row[0] for row in ablation.rows] == ["c"]
    assert "±" not in "".join(ablation.rows[0])


def test_a_table_in_a_terminal_and_on_a_page():
    table = tables(rows(), "base", None)[1]
    lines = table.text().splitlines()
    assert len({len(line) for line in lines[2:]}) <= 2
    page = table.markdown().splitlines()
    assert page[2:4] == ["| variant | 0–3 | 4–7 | 8–11 | 12–15 |", "| --- | ---: | ---: | ---: | ---: |"]


@pytest.mark.parametrize(
    ("mean", "decimals", "sign", "text"),
    [
        (Mean(1234.0, 0.0, 3), 0, False, "1,234"),
        (Mean(1.23456, 0.00049, 3), 4, False, "1.2346 ± 0.0005"),
        (Mean(-0.5, math.nan, 1), 2, True, "-0.50"),
        (Mean(0.5, 0.1, 2), 1, True, "+0.5 ± 0.1"),
    ],
)
def test_how_a_mean_is_shown(mean, decimals, sign, text):
    assert shown(mean, decimals, sign=sign) == text


def test_tables_are_put_between_the_marks_of_a_page(tmp_path):
    page, file = tmp_path / "page.md", tmp_path / "rows.tsv"
    write_tsv(rows(), file)
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        assert main([str(page), str(file), "a"]) == 0
        head, _, rest = page.read_text().partition(BEGIN)
        made, _, tail = rest.partition(END)
        assert (head, tail) == ("before\n", "\nafter\n")
        assert made.strip() == "\n\n".join(table.markdown() for table in tables(rows(), "base", "a"))
    with pytest.raises(ValueError, match="no place for the tables"):
        put_into("before\n", rows(), "a")
