"""Sequence parallelism on two and four gloo processes equals the plain decoder, for every mode, family and grouping."""

import json
from collections import Counter

import parallel_ranks
import pytest
import torch
import torch.multiprocessing
from ports import free_port

from longrecipe_core.attention.dist_flash import schedule
from longrecipe_core.attention.sequence import SequenceLayout


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """`ranks(function, world)`: what that function of `parallel_ranks` returned on each rank."""
    known = {}

    def run(name, world):
        if world not in known:
            path = tmp_path_factory.mktemp("ranks") / "answer.json"
            torch.multiprocessing.spawn(parallel_ranks.rank_main, (world, free_port(), str(path)), nprocs=world)
            known[world] = json.loads(path.read_text())
        return known[world][name]

    return run


@pytest.mark.parametrize("case", parallel_ranks.CASES)
@pytest.mark.parametrize("world", [2, 4])
def test_logits_loss_and_gradients_equal_the_oracle(ranks, world, case):
    for errors in ranks("every_mode", world):
        assert set(errors[case]) == {"logits", "loss", "gradients", "gradients, relative"}
        assert max(errors[case].values()) < 1e-5


@pytest.mark.parametrize("case", ["ulysses None", "ring None", "usp 2", "usp 1", "dist-flash None"])
def test_two_groups_beside_each_other(ranks, case):
    for errors in ranks("data_parallel", 4):
        assert max(errors[case].values()) < 1e-5


@pytest.mark.parametrize("degree", ["1", "2", "4"])
def test_usp_in_a_group_of_ones_own(ranks, degree):
    for errors in ranks("usp_of_strided_ranks", 4):
        assert max(errors[degree].values()) < 1e-5


@pytest.mark.parametrize("world", [2, 4])
def test_packed_samples_apart_with_ulysses(ranks, world):
    assert all(errors["logits"] < 1e-5 for errors in ranks("packed_with_ulysses", world))


def test_gradients_through_gathered_logits(ranks):
    assert all(errors["gradients"] < 1e-5 for errors in ranks("gathered_loss", 4))


@pytest.mark.parametrize("mode", parallel_ranks.MODES)
def test_the_probe_sees_through_the_ranks(ranks, mode):
    for said in ranks("probes", 4):
        assert said[mode] == "passes"
        assert "attention is cut" in said[f"{mode}, cut"]
        # In a zigzag the last token lies beside the first two.
        assert f"does not see token {2 if mode == 'ring' else 0}" in said[f"{mode}, cut"]


def test_what_would_go_wrong_without_a_word_is_refused(ranks):
    for said in ranks("refusals", 4):
        assert "4 ranks can't split the 9 query heads" in said["heads"]
        assert "ring" in said["heads"]
        assert "usp" in said["heads"]
        assert "ulysses_degree 3 does not divide the 4 ranks" in said["degree"]
        assert "17 tokens can't be shared by 4 ranks with ring: pad it to a multiple of 8" in said["length"]
        assert "position_ids" in said["positions"]
        assert "shift them before shard_sequence" in said["labels"]
        assert "pass none" in said["mask"]
        assert "allowed: local, ulysses" in said["packed"]
        assert said["local again"]


@pytest.mark.parametrize("world", range(1, 10))
def test_the_balanced_schedule_does_each_block_once(world):
    steps = schedule(world)
    assert len(steps) == world // 2 + 1
    blocks = [(block.query, block.key) for step in steps for block in step]
    assert Counter(blocks) == Counter((q, k) for q in range(world) for k in range(q + 1))
    for step in steps:
        workers = [block.worker for block in step]
        assert len(set(workers)) == len(workers)
        assert all(block.worker in (block.query, block.key) for block in step)


@pytest.mark.parametrize(
    ("parallel", "degree", "ulysses"),
    [("ulysses", 4, 4), ("ring", 4, 1), ("usp", 4, 2), ("usp", 8, 2), ("usp", 8, 4), ("dist-flash", 4, 1)],
)
def test_every_token_has_one_place(parallel, degree, ulysses):
    layout = SequenceLayout(parallel, degree, ulysses)
    length = layout.multiple * 3
    parts = [layout.tokens(length, rank) for rank in range(degree)]
    assert {len(part) for part in parts} == {length // degree}
    assert sorted(torch.cat(parts).tolist()) == list(range(length))


def test_zigzag_is_as_in_the_paper():
    assert SequenceLayout("ring", 2, 1).tokens(8, 0).tolist() == [0, 1, 6, 7]
    assert SequenceLayout("ring", 2, 1).tokens(8, 1).tolist() == [2, 3, 4, 5]
