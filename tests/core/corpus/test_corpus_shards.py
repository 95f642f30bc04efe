import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from longrecipe_core.corpus import PackedShards, PackedWriter, TokenShards, TokenWriter, pack
from longrecipe_core.corpus.shards import SCHEMA
from longrecipe_core.errors import ArtifactDamagedError, CorpusError


def documents(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 2**31 - 1, rng.integers(1, 40), dtype=np.int32) for _ in range(count)]


def write(directory: Path, rows: list[np.ndarray], split: str = "train", shard: int = 100, batch: int = 30) -> None:
    with TokenWriter(directory, split, tokens_per_shard=shard, tokens_per_batch=batch) as writer:
        for number, row in enumerate(rows):
            writer.append(f"id {number}", f"{number % 3}-text", row, prompt_tokens=number % 2)
        assert (writer.rows, writer.tokens) == (len(rows), sum(map(len, rows)))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = documents(60)
    write(tmp_path, rows)
    assert len(list(tmp_path.glob("train-*.arrow"))) > 5
    shards = TokenShards(tmp_path)
    assert len(shards) == 60
    assert shards.lengths.dtype == np.int64
    assert shards.lengths.tolist() == [len(row) for row in rows]
    for number in [59, 0, *range(60)]:
        ids = shards.input_ids(number)
        assert ids.dtype == np.int32
        assert np.array_equal(ids, rows[number])
        assert shards.document_id(number) == f"id {number}"
        assert shards.source(number) == f"{number % 3}-text"
        assert shards.prompt_tokens(number) == number % 2
    for row in (60, -1):
        with pytest.raises(IndexError, match=rf"row {row} of .*60 train rows"):
            shards.input_ids(row)


def test_plain_pyarrow_reads_the_files(tmp_path: Path) -> None:
    rows = documents(20)
    write(tmp_path, rows)
    tables = [pa.ipc.open_file(str(path)).read_all() for path in sorted(tmp_path.iterdir())]
    table = pa.concat_tables(tables)
    assert table.schema == SCHEMA
    assert table.column("input_ids").to_pylist() == [row.tolist() for row in rows]
    assert table.column("tokens").to_pylist() == [len(row) for row in rows]
    # A file ends with the document that brings it to the number of tokens, never before and never after.
    for one in tables[:-1]:
        sizes = one.column("tokens").to_numpy()
        assert sizes.sum() >= 100 > sizes[:-1].sum()
    # So does a record batch: what the writer holds in memory.
    for path in sorted(tmp_path.iterdir()):
        with pa.ipc.open_file(str(path)) as reader:
            batches = [reader.get_batch(n).column("tokens").to_numpy() for n in range(reader.num_record_batches)]
        assert len(batches) > 1
        assert all(sizes.sum() >= 30 > sizes[:-1].sum() for sizes in batches[:-1])
        assert batches[-1][:-1].sum() < 30


def test_reading_copies_nothing(tmp_path: Path) -> None:
    write(tmp_path, [np.arange(100_000, dtype=np.int32)] * 3, shard=10**9, batch=150_000)
    shards = TokenShards(tmp_path)
    before = pa.total_allocated_bytes()
    first, again, other = shards.input_ids(1), shards.input_ids(1), shards.input_ids(2)
    assert np.shares_memory(first, again)
    assert not np.shares_memory(first, other)
    assert not first.flags.owndata
    assert not first.flags.writeable
    assert pa.total_allocated_bytes() == before


def test_readers_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    rows = documents(30)
    write(tmp_path, rows)
    shards = TokenShards(tmp_path)
    fresh = len(pickle.dumps(shards))
    shards.input_ids(3)
    copy = pickle.loads(pickle.dumps(shards))
    assert len(pickle.dumps(shards)) == fresh < 2_000
    assert np.array_equal(copy.input_ids(29), rows[29])


def test_the_bytes_depend_on_the_rows_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, documents(60))
    files = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in files] == [path.name for path in sorted((tmp_path / "b").iterdir())]
    assert all(path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() for path in files)


def test_no_documents_is_not_the_same_as_missing(tmp_path: Path) -> None:
    write(tmp_path, [], split="validation")
    assert len(TokenShards(tmp_path, "validation")) == 0
    assert TokenShards(tmp_path, "validation").lengths.tolist() == []
    with pytest.raises(ArtifactDamagedError, match=r"train-00000\.arrow expected, found none"):
        len(TokenShards(tmp_path))


def test_damage_is_told_by_name(tmp_path: Path) -> None:
    write(tmp_path, documents(60))
    with pytest.raises(CorpusError, match=r"train-00000\.arrow is there already"):
        write(tmp_path, [])
    victim = tmp_path / "train-00001.arrow"
    content = victim.read_bytes()
    victim.write_bytes(content[:-20])
    with pytest.raises(ArtifactDamagedError, match=r"train-00001\.arrow: not a whole Arrow file"):
        len(TokenShards(tmp_path))
    victim.unlink()
    with pytest.raises(ArtifactDamagedError, match=r"train-00001\.arrow.* expected, found train-00000"):
        len(TokenShards(tmp_path))
    with pa.ipc.new_file(str(victim), pa.schema([("x", pa.int32())])):
        pass
    with pytest.raises(ArtifactDamagedError, match=r"train-00001\.arrow: columns \['x'\]"):
        len(TokenShards(tmp_path))


def peak_bytes(directory: Path, count: int) -> int:
    """Most bytes that Python and Arrow hold while `count` documents are written and read."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    previous = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        ids = np.arange(2_000, dtype=np.int32)
        with TokenWriter(directory, "train", tokens_per_shard=200_000, tokens_per_batch=20_000) as writer:
            for number in range(count):
                writer.append(f"{number:064d}", "0-text", ids.copy())
        shards = TokenShards(directory)
        for number in range(count):
            shards.input_ids(number)
        return tracemalloc.get_traced_memory()[1] + int(pool.max_memory())
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(previous)


def test_memory_does_not_grow_with_the_documents(tmp_path: Path) -> None:
    small, large = peak_bytes(tmp_path / "small", 100), peak_bytes(tmp_path / "large", 2_000)
    assert sum(path.stat().st_size for path in (tmp_path / "large").iterdir()) > 16_000_000
    assert large - small < 2_000_000


# Packing ------------------------------------------------------------------------------------------------


def samples(seed: int, count: int = 25) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(seed)
    rows = documents(count, seed)
    return [(row, int(rng.integers(0, len(row) + 1))) for row in rows]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [1, 2, 7, 16, 10_000])
def test_packing_against_a_token_by_token_oracle(seed: int, length: int) -> None:
    given = samples(seed)
    # One entry per token: (id, number of its sample, place in the sample, is it prompt?)
    stream = [(int(ids[k]), n, k, k < prompt) for n, (ids, prompt) in enumerate(given) for k in range(len(ids))]
    expected = [stream[start : start + length] for start in range(0, len(stream), length)]
    rows = list(pack(given, length))
    assert len(rows) == len(expected)
    for row, tokens in zip(rows, expected, strict=True):
        assert row.input_ids.dtype == row.sample_starts.dtype == row.prompt_tokens.dtype == np.int32
        assert row.input_ids.tolist() == [token[0] for token in tokens]
        starts = [k for k in range(len(tokens)) if k == 0 or tokens[k][1] != tokens[k - 1][1]]
        assert row.sample_starts.tolist() == starts
        ends = [*starts[1:], len(tokens)]
        prompts = [sum(token[3] for token in tokens[a:b]) for a, b in zip(starts, ends, strict=True)]
        assert row.prompt_tokens.tolist() == prompts


def test_packed_rows_are_read_back(tmp_path: Path) -> None:
    rows = list(pack(samples(1), 16))
    with PackedWriter(tmp_path, tokens_per_shard=64, tokens_per_batch=32) as writer:
        for row in rows:
            writer.append(row)
    shards = pickle.loads(pickle.dumps(PackedShards(tmp_path)))
    assert len(shards) == len(rows)
    for number, row in enumerate(rows):
        read = shards.row(number)
        assert np.array_equal(read.input_ids, row.input_ids)
        assert np.array_equal(read.sample_starts, row.sample_starts)
        assert np.array_equal(read.prompt_tokens, row.prompt_tokens)
        assert not read.input_ids.flags.owndata


def test_packing_holds_one_sample_at_a_time() -> None:
    taken = 0

    def endless() -> Iterator[tuple[np.ndarray, int]]:
        nonlocal taken
        while True:
            taken += 1
            yield np.arange(10, dtype=np.int32), 4

    rows = pack(endless(), 25)
    next(rows)
    assert taken == 3
