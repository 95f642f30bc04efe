"""Copies in the windows of a base model: where they stand, how many there are, and that each is a draw of its own."""

from itertools import pairwise

import numpy as np
import pytest

from longrecipe_core.corpus import TokenWriter
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import RecipeError, TrainingError
from longrecipe_core.recipe import CopiesSection, Recipe
from longrecipe_core.training.copies import put_copies
from longrecipe_core.training.data import Batches, Windows
from longrecipe_core.training.job import DataSpec

LENGTH = 64
IDS = (5000, 6000)
TEXT = np.arange(LENGTH)  # no token twice: what is there twice, or is above, was put there


def put(number, progress=0.0, **options):
    section = CopiesSection(**({"share": 1, "span": (4, 20)} | options))
    before = TEXT.copy()
    copied = put_copies(TEXT, section, progress, IDS, generator(3, number))
    assert (before == TEXT).all()
    return copied


def repeats(tokens):
    """Each pair of places next to each other that hold the same token, by brute force."""
    return [
        (i, j) for j in range(LENGTH) for i in range(j) if tokens[i] == tokens[j] and tokens[i] not in tokens[i + 1 : j]
    ]


def test_a_far_copy_is_one_whole_span_at_any_distance():
    lengths, distances, starts = set(), set(), set()
    for number in range(1500):
        tokens = put(number, far_share=1, random_share=(0, 0)).tokens
        pairs = repeats(tokens)
        (distance,) = {j - i for i, j in pairs}  # one copy, in one piece
        assert all(after == (before[0] + 1, before[1] + 1) for before, after in pairwise(pairs))
        untouched = np.setdiff1d(TEXT, [j for _, j in pairs])
        assert (tokens[untouched] == untouched).all()
        assert distance >= len(pairs)  # span and copy don't overlap
        lengths.add(len(pairs))
        distances.add(distance)
        starts.add(pairs[0][0])
    assert lengths == set(range(4, 21))
    assert distances == set(range(4, LENGTH - 4 + 1))
    assert min(starts) == 0
    assert max(starts) > LENGTH / 2


def test_other_copies_go_on_to_the_end():
    for number in range(100):
        tokens = put(number, far_share=0, random_share=(0, 0)).tokens.tolist()
        span = tokens.index(0, 1)
        assert 4 <= span <= 20
        assert tokens == [place % span for place in range(LENGTH)]


@pytest.mark.parametrize("far", [0, 1])
def test_random_tokens_are_foretold_by_nothing_where_they_first_stand(far):
    for number in range(100):
        copied = put(number, far_share=far, random_share=(1, 1))
        tokens, first = copied.tokens, copied.unforeseen
        (span,) = (part for part in np.split(np.arange(LENGTH), np.flatnonzero(np.diff(first)) + 1) if first[part[0]])
        is_random = (tokens >= IDS[0]) & (tokens < IDS[1])
        copies = np.flatnonzero(is_random & ~first)
        assert is_random[span].all()
        expected = np.resize(tokens[span], copies.size)
        assert copies.size >= span.size
        assert (tokens[copies] == expected).all()
        assert (tokens[~is_random] == TEXT[~is_random]).all()
        assert is_random.all() == (far == 0)


def kind(copied):
    tokens = copied.tokens
    if (tokens == TEXT).all():
        return "plain"
    return ("random " if copied.unforeseen.any() else "text ") + ("far" if len(set(tokens)) > 20 else "near")


@pytest.mark.parametrize(("progress", "random"), [(0.0, 0.2), (0.5, 0.5), (1.0, 0.8)])
def test_shares(progress, random):
    options = {"share": 0.6, "far_share": 0.25, "random_share": (0.2, 0.8)}
    kinds = [kind(put(number, progress, **options)) for number in range(4000)]
    wanted = {"plain": 0.4}
    for name, share in (("random", random), ("text", 1 - random)):
        wanted |= {f"{name} far": 0.6 * share * 0.25, f"{name} near": 0.6 * share * 0.75}
    for name, share in wanted.items():
        assert kinds.count(name) / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


@pytest.fixture
def windows(tmp_path):
    with TokenWriter(tmp_path / "tokens", "train") as writer:
        writer.append("0" * 64, "0-text", np.arange(3000, dtype=np.int32))
    copies = CopiesSection(share=1, span=(4, 20), random_share=(0, 1))
    spec = DataSpec(
        kind="windows", tokens=tmp_path / "tokens", length=LENGTH, samples=400, copies=copies, random_ids=IDS
    )
    return lambda **changes: Windows(spec.model_copy(update=changes), seed=1)


def batch(samples, step):
    batches = Batches(samples, global_batch=4, micro_batch=2, rank=0, world_size=1, seed=1, stage="base")
    return batches.step(step)


def test_a_step_has_the_same_copies_whatever_was_read_before(windows):
    whole = windows()
    read = [batch(whole, step) for step in range(6)]
    resumed = batch(windows(), 5)  # as after a kill: nothing but the step is known
    assert [part.numbers for part in resumed] == [(20, 21), (22, 23)]
    for before, after in zip(read[5], resumed, strict=True):
        assert (before.input_ids == after.input_ids).all()
        assert (before.labels == after.labels).all()
    other = Windows(whole._spec, seed=2)
    assert (other.sample(20).input_ids != whole.sample(20).input_ids).any()


def test_random_spans_come_with_the_steps_and_are_no_labels(windows):
    samples = [windows().sample(number) for number in range(400)]
    is_random = [bool((sample.input_ids >= IDS[0]).any()) for sample in samples]
    assert sum(is_random[:50]) < 15
    assert sum(is_random[-50:]) > 35
    for sample in samples:
        tokens, labels = sample.input_ids.tolist(), sample.labels.tolist()
        expected = [
            -100 if token >= IDS[0] and token not in tokens[: place + 1] else token
            for place, token in enumerate(tokens[1:])
        ]
        # A random token may be drawn twice; no label is wrong in any case.
        wrong = [(have, want) for have, want in zip(labels, [*expected, -100], strict=True) if have != want]
        assert all(have == -100 and want >= IDS[0] for have, want in wrong)
        assert len(wrong) < 4


def test_without_copies_windows_and_their_order_are_what_they_were(windows):
    plain = windows(copies=None, random_ids=None)
    tokens = plain.sample(7).input_ids
    assert (np.diff(tokens) == 1).all()
    (first, _) = batch(plain, 0)
    order = generator(1, "base", "order", 0).permutation(400)
    assert first.numbers == (int(order[0]), int(order[1]))


def test_copies_need_to_know_which_ids_are_random(windows):
    with pytest.raises(TrainingError, match="random_ids"):
        windows(random_ids=None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("base.copies.span=[20, 10]", "the first must not be above the second"),
        ("base.copies.span=[20, 129]", "twice 129 tokens don't fit window 256"),
        ("base.training.steps=null", "training.steps is missing"),
        ("base.minimum_copying.distances=[64, 225]", "257 tokens, above window 256"),
    ],
)
def test_what_can_not_be(change, told):
    with pytest.raises(RecipeError, match=told.replace("[", r"\[")):
        Recipe.load("recipes/copying-tiny.yaml", [change])
