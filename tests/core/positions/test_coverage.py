"""Coverage against plain double loops, exhaustive small cases and closed forms."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cli import parser
from longrecipe_core.errors import PositionError
from longrecipe_core.positions import STRATEGIES
from longrecipe_core.positions.coverage import draw_samples, geometric_segments, measure_coverage
from longrecipe_core.positions.coverage_plot import binned


def mean_distance(positions):
    return float(np.mean([b - a for a, b in itertools.combinations(sorted(positions), 2)]))


# Mean distance of two tokens of a sample.
def rpes_form(tokens, target):
    return (target + 1) / 3


def pose_form(tokens, target):
    """A cut between all tokens and a skip in 0..T - n, both uniform."""
    return (tokens + 1) / 3 + (target - tokens) * (tokens + 1) / (6 * (tokens - 1))


def reference_pose_form(tokens, target):
    """The reference draws the cut in 0..T - n; where that is not below n, nothing is skipped. For n <= T - n + 1."""
    room = target - tokens
    return (tokens + 1) / 3 + (tokens + 1) * (2 * room + tokens) / (12 * (room + 1))


def longrecipe_form(tokens, target):
    """Many short segments, after the right point; T / 3 before it."""
    return 3 * target / 8 - tokens / 24


@settings(max_examples=200)
@given(st.integers(2, 60), st.data())
def test_counts_are_those_of_a_double_loop(target, data):
    tokens = data.draw(st.integers(1, target))
    size = data.draw(st.integers(1, 4))
    one = st.sets(st.integers(0, target - 1), min_size=tokens, max_size=tokens).map(sorted)
    samples = data.draw(st.lists(one, min_size=size, max_size=size))
    coverage = measure_coverage("x", [np.array(sample) for sample in samples], target)
    counts = Counter(b - a for sample in samples for i, a in enumerate(sample) for b in sample[i:])
    assert coverage.distance_counts.tolist() == [counts[distance] for distance in range(target)]
    assert coverage.distance_counts.sum() == size * tokens * (tokens + 1) // 2
    seen = set().union(*samples)
    assert coverage.positions_seen.tolist() == [position in seen for position in range(target)]
    assert coverage.seen == pytest.approx(len(seen) / target)
    assert coverage.seen_per_sample == tokens / target
    assert coverage.distances_seen == pytest.approx(len(set(counts) - {0}) / (target - 1))
    runs = sum(1 for sample in samples for position in sample if position - 1 not in sample)
    assert coverage.runs == runs
    assert coverage.mean_run == pytest.approx(size * tokens / runs)
    if tokens > 1:
        assert coverage.mean_distance == pytest.approx(np.mean([mean_distance(sample) for sample in samples]))


def test_full_and_the_longest_counts_are_exact():
    """Distance d of 0..T - 1 stands between T - d pairs, here at the paper's length."""
    target = 128_000
    coverage = measure_coverage("full", [np.arange(target)] * 3, target)
    assert (coverage.distance_counts == 3 * (target - np.arange(target))).all()
    assert coverage.mean_distance == pytest.approx((target + 1) / 3)
    assert coverage.mean_run == target


def test_closed_forms_hold_for_every_possible_draw():
    for tokens, target in ((3, 6), (4, 7), (5, 9)):
        subsets = itertools.combinations(range(target), tokens)
        assert np.mean([mean_distance(subset) for subset in subsets]) == pytest.approx(rpes_form(tokens, target))
        two_chunks = [
            [*range(cut), *range(cut + skip, tokens + skip)]
            for cut in range(1, tokens)
            for skip in range(target - tokens + 1)
        ]
        assert np.mean([mean_distance(p) for p in two_chunks]) == pytest.approx(pose_form(tokens, target))
    for tokens, target in ((3, 6), (4, 9), (5, 11)):
        room = target - tokens
        means = []
        for cut in range(room + 1):
            skips = range(cut, room + 1) if cut < tokens else [0]
            drawn = [[j if j < cut else j + skip for j in range(tokens)] for skip in skips]
            means.append(np.mean([mean_distance(positions) for positions in drawn]))
        assert np.mean(means) == pytest.approx(reference_pose_form(tokens, target))


@pytest.mark.parametrize(
    ("strategy", "segment_length", "form"),
    [
        ("rpes", 88, rpes_form),
        ("pose", 88, pose_form),
        ("longrecipe", 2, longrecipe_form),
        ("gather", 2, longrecipe_form),
    ],
)
def test_mean_distance_is_the_closed_form_within_its_standard_error(strategy, segment_length, form):
    tokens, target, samples = 1500, 5000, 300
    drawn = draw_samples(strategy, tokens, target, samples=samples, seed=1, segment_length=segment_length)
    means = [measure_coverage(strategy, [positions], target).mean_distance for positions in drawn]
    error = np.std(means, ddof=1) / samples**0.5
    assert error < target / 150
    assert abs(np.mean(means) - form(tokens, target)) < 4 * error


def test_figures_in_the_documentation():
    """docs/positions.md, section Coverage."""
    assert [round(rpes_form(n, t)) for n, t in ((38_400, 128_000), (24_000, 80_000))] == [42_667, 26_667]
    assert [round(pose_form(n, t)) for n, t in ((38_400, 128_000), (24_000, 80_000))] == [27_734, 17_334]
    assert [round(longrecipe_form(n, t)) for n, t in ((38_400, 128_000), (24_000, 80_000))] == [46_400, 29_000]
    assert [round(reference_pose_form(n, t)) for n, t in ((38_400, 128_000), (24_000, 80_000))] == [20_572, 12_858]


def test_segments_are_geometric_and_sum_to_the_tokens():
    rng = np.random.Generator(np.random.Philox(5))
    lengths = np.concatenate([geometric_segments(5000, 20, rng)[:-1] for _ in range(40)])
    assert lengths.min() == 1
    # 10,000 draws of standard deviation 20; the bias from leaving the last of each out is below 0.1.
    assert abs(lengths.mean() - 20) < 1
    assert geometric_segments(7, 1, rng).tolist() == [1] * 7
    assert geometric_segments(1, 88, rng).tolist() == [1]
    assert geometric_segments(500, 3.5, rng).sum() == 500


def test_same_seed_same_samples():
    first, second = (list(draw_samples("cream", 50, 200, samples=4, seed=9)) for _ in range(2))
    assert [positions.tolist() for positions in first] == [positions.tolist() for positions in second]
    assert len({positions.tobytes() for positions in first}) == 4


def test_bins_keep_the_mean():
    counts = np.arange(1.0, 1001.0)
    middles, means = binned(counts)
    assert len(middles) == 200
    assert means.tolist() == middles.tolist()  # counts[i] is the distance itself
    few = binned(np.array([4.0, 7.0]))
    assert (few[0].tolist(), few[1].tolist()) == ([1, 2], [4, 7])


def test_no_samples_and_no_segments_are_errors():
    with pytest.raises(PositionError, match="0 samples"):
        measure_coverage("rpes", [], 10)
    with pytest.raises(PositionError, match=r"segment length of 0\.5 tokens: allowed 1 and above"):
        next(draw_samples("rpes", 5, 10, samples=1, seed=0, segment_length=0.5))


RECIPE = """
name: small
seed: 3
model: {path: nowhere}
context: {target_length: 600, train_length: 180}
corpus: {sources: [{path: "*.txt", format: text}]}
extend: {learning_rate: 1e-3}
replay: {sources: [{path: "*.txt", format: text}]}
anneal: {learning_rate: 1e-3}
"""


def command(tmp_path, *arguments):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    parsed = parser().parse_args(["positions", str(recipe), "--output", str(tmp_path / "out"), *arguments])
    return parsed.command(parsed)


def test_the_command_tabulates_every_strategy(tmp_path, capsys):
    assert command(tmp_path, "--samples", "7", "--set", "positions.right_point=60") == 0
    printed = capsys.readouterr().out
    out = tmp_path / "out"
    assert (out / "positions.png").read_bytes().startswith(b"\x89PNG")
    head, *rows = [line.split("\t") for line in (out / "positions.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == list(STRATEGIES)
    by_name = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert by_name["full"] | {"tokens": "600", "samples": "1", "seen": "1.0"} == by_name["full"]
    assert by_name["rpes"] | {"tokens": "180", "samples": "7", "seen_per_sample": "0.3"} == by_name["rpes"]
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    for strategy in STRATEGIES:
        row = by_name[strategy]
        assert lines[strategy].split()[1:5] == [
            row["tokens"],
            row["samples"],
            *(f"{float(row[column]):.1f}" for column in ("mean_distance", "mean_run")),
        ]
        shares = [f"{100 * float(row[column]):.2f}" for column in ("seen_per_sample", "seen", "distances_seen")]
        assert lines[strategy].split()[5::2] == shares
    for name in ("positions.png", "positions.tsv", "distances.tsv"):
        assert str(out / name) in printed
    head, *rows = [line.split("\t") for line in (out / "distances.tsv").read_text().splitlines()]
    assert head == ["distance", *STRATEGIES]
    assert [row[0] for row in rows] == [str(distance) for distance in range(600)]
    totals = [sum(int(row[column]) for row in rows) for column in range(1, len(head))]
    assert totals == [600 * 601 // 2] + [7 * 180 * 181 // 2] * (len(STRATEGIES) - 1)


def test_the_command_leaves_out_what_a_recipe_is_too_short_for(tmp_path, capsys):
    command(tmp_path, "--samples", "2")
    printed = capsys.readouterr().out
    assert "left out: longrecipe-fixed with right_point 8000 and 180 tokens: allowed 1..180" in printed
    assert not any(line.startswith("longrecipe-fixed") for line in printed.splitlines())
    first = (tmp_path / "out/positions.png").read_bytes()
    command(tmp_path, "--samples", "2")
    assert (tmp_path / "out/positions.png").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--samples", "0"], "0 samples"), (["--segment-length", "nan"], "segment length of nan")],
)
def test_the_command_refuses_what_it_cannot_draw(tmp_path, arguments, message):
    with pytest.raises(PositionError, match=message):
        command(tmp_path, *arguments)
    assert not (tmp_path / "out").exists()
