"""Samples, labels and the order that they come in."""

import itertools

import numpy as np
import pytest

from longrecipe_core.corpus import PackedRow, PackedWriter, TokenWriter
from longrecipe_core.errors import TrainingError
from longrecipe_core.training.data import Batches, Packed, Windows
from longrecipe_core.training.job import DataSpec


def packed(tmp_path, **options):
    row = PackedRow(
        input_ids=np.array([11, 12, 13, 2, 21, 22, 23, 24, 2, 31], dtype=np.int32),
        sample_starts=np.array([0, 4, 9], dtype=np.int32),
        prompt_tokens=np.array([2, 3, 1], dtype=np.int32),
    )
    with PackedWriter(tmp_path / "rows") as writer:
        writer.append(row)
    return Packed(DataSpec(kind="packed", tokens=tmp_path / "rows", length=12, **options)).sample(0)


def test_packed_rows_are_padded_and_the_loss_ignores_padding(tmp_path):
    sample = packed(tmp_path)
    assert sample.input_ids.tolist() == [11, 12, 13, 2, 21, 22, 23, 24, 2, 31, 0, 0]
    assert sample.labels.tolist() == [12, 13, 2, 21, 22, 23, 24, 2, 31, -100, -100, -100]
    assert sample.position_ids.tolist() == list(range(12))
    assert sample.sample_starts is None


def test_prompts_can_be_left_out_of_the_loss(tmp_path):
    # Labels are the next tokens: 11 12 | 13 2 | 21 22 23 | 24 2 | 31, prompts 11 12, 21 22 23 and 31.
    sample = packed(tmp_path, loss_on_prompt=False)
    assert sample.labels.tolist() == [-100, 13, 2, -100, -100, -100, 24, 2, -100, -100, -100, -100]


def test_samples_kept_apart_do_not_predict_each_other(tmp_path):
    sample = packed(tmp_path, attention_across_samples=False)
    assert sample.sample_starts.tolist() == [0, 4, 9]
    assert sample.labels.tolist() == [12, 13, 2, -100, 22, 23, 24, 2, -100, -100, -100, -100]


def windows(tmp_path, lengths, **options):
    with TokenWriter(tmp_path / "tokens", "train") as writer:
        for number, length in enumerate(lengths):
            writer.append(f"{number:064x}", "0-text", np.arange(length, dtype=np.int32) + 1000 * number)
    return Windows(DataSpec(kind="windows", tokens=tmp_path / "tokens", length=8, **options), seed=1)


def test_windows_are_drawn_over_all_places_of_all_long_documents(tmp_path):
    data = windows(tmp_path, [9, 3, 8, 40], samples=4000)
    firsts = []
    for number in range(len(data)):
        sample = data.sample(number)
        assert sample.input_ids.tolist() == list(range(sample.input_ids[0], sample.input_ids[0] + 8))
        assert sample.labels.tolist() == [*sample.input_ids[1:].tolist(), -100]
        firsts.append(int(sample.input_ids[0]))
    # 2 places in document 0, none in 1, one in 2, 33 in 3: all 36 are met about 111 times.
    places = [0, 1, 2000, *range(3000, 3033)]
    assert set(firsts) == set(places)
    assert min(firsts.count(place) for place in places) > 60


def test_no_document_holds_a_window(tmp_path):
    with pytest.raises(TrainingError, match="no document has the 8 tokens"):
        windows(tmp_path, [7, 3])


def test_less_than_one_length_of_windows_is_no_training(tmp_path):
    """Three places in all: without a number of samples there would be none, and a division by zero later."""
    with pytest.raises(TrainingError, match=r"room for 3 windows of 8 tokens.*number of steps"):
        windows(tmp_path, [9, 8])


class Numbered:
    """Twelve samples that are their own number."""

    in_order = False

    def __len__(self):
        return 12

    def sample(self, number):
        from longrecipe_core.training.data import Sample

        return Sample(*(np.array([number]) for _ in range(3)))


@pytest.mark.parametrize(("world", "micro"), [(1, 1), (2, 1), (2, 2), (4, 1)])
def test_every_rank_layout_computes_the_same_global_batches(world, micro):
    def step(number, world, micro):
        found = []
        for rank in range(world):
            batches = Batches(
                Numbered(),
                global_batch=4,
                micro_batch=micro,
                rank=rank,
                world_size=world,
                seed=3,
                stage="extend",
            )
            found += [sample for batch in batches.step(number) for sample in batch.numbers]
        return sorted(found)

    epoch = [step(number, world, micro) for number in range(3)]
    assert sorted(itertools.chain(*epoch)) == list(range(12))  # each sample once per epoch
    assert epoch == [step(number, 1, 1) for number in range(3)]
    assert step(3, world, micro) != epoch[0]  # another order in the next
