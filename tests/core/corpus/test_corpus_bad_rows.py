"""Rows and files that can't be read: an error that names them, or a counted skip, and never a silent loss."""

import codecs
import gzip
import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_rows import read, refuse

from longrecipe_core.corpus import load_tokenizer
from longrecipe_core.errors import CorpusError

LONGEST = 120


def arrow(table: pa.Table, kind: str, rows: int = 5) -> bytes:
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink, row_group_size=rows, write_page_checksum=True, compression="none")
    else:
        with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


# Rows ---------------------------------------------------------------------------------------------------

BAD_LINES = {
    "not_utf8": [b'{"text": "\xff"}', b'\xc3{"text": "a"}', b'{"text": "\\ud800"}'],
    "oversized": [b'{"text": "' + b"x" * LONGEST + b'"}', b"\xff" * (LONGEST + 1)],
    "not_json": [b'{"text": "cut', b"plain", b"{} {}", b"[" * 110 + b"1", b"1" * 5 + b"e"],
    "not_object": [b"[1]", b'"text"', b"null"],
    "missing_column": [b"{}", b'{"body": "x"}'],
    "wrong_type": [b'{"text": 7}', b'{"text": ["a"]}', b'{"text": true}'],
}
good_lines = st.text(max_size=20).filter(lambda text: text.isprintable()).map(lambda text: (None, text))
bad_lines = st.sampled_from([(reason, line) for reason, lines in BAD_LINES.items() for line in lines])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(good_lines | bad_lines), st.booleans(), st.sampled_from(["", ".gz", ".zst"]))
def test_any_mix_of_lines_keeps_exactly_the_good_ones(
    tmp_path: Path, lines: list[tuple[str | None, Any]], last_ends: bool, suffix: str
) -> None:
    content = b"\n".join(json.dumps({"text": x}).encode() if reason is None else x for reason, x in lines)
    content += b"\n" if last_ends and lines else b""
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(content))
    # Escapes make a short text a long line.
    fits = [len(json.dumps({"text": x})) <= LONGEST for reason, x in lines if reason is None]
    good = [x for reason, x in lines if reason is None]
    texts, counts = read(path, "jsonl", longest_row=LONGEST)
    assert texts == [text for text, fit in zip(good, fits, strict=True) if fit]
    expected: dict[str, int] = {}
    for reason in [*(reason for reason, _ in lines if reason), *["oversized"] * fits.count(False)]:
        expected[reason] = expected.get(reason, 0) + 1
    assert counts == {"read": len(lines), "skipped": expected, "files_skipped": {}}
    if expected:
        assert f"a.jsonl{suffix}, line " in refuse(path, "jsonl", longest_row=LONGEST)


@pytest.mark.parametrize("kind", ["parquet", "file", "stream", "disk"])
def test_bad_values_of_a_table(tmp_path: Path, kind: str) -> None:
    values = [b"one", b"\xff\xfe", None, b"x" * (LONGEST + 1), b"", "fünf".encode()]
    offsets = [0]
    for value in values:
        offsets.append(offsets[-1] + len(value or b""))
    buffers = [pa.py_buffer(bytes([0b111011])), pa.array(offsets, pa.int32()).buffers()[1]]
    column = pa.Array.from_buffers(pa.string(), 6, [*buffers, pa.py_buffer(b"".join(v or b"" for v in values))])
    table = pa.table({"text": column, "n": range(6)})
    path = tmp_path / "a"
    if kind == "disk":
        import datasets

        datasets.Dataset(table).save_to_disk(path)
    else:
        path.write_bytes(arrow(table, kind, rows=4))
    format = {"file": "arrow", "stream": "arrow"}.get(kind, kind)
    texts, counts = read(path, format, longest_row=LONGEST)
    assert texts == ["one", None, "", "fünf"]
    assert counts == {"read": 6, "skipped": {"not_utf8": 1, "oversized": 1}, "files_skipped": {}}
    assert "a, row 2, column 'text': not UTF-8" in refuse(path, format, longest_row=LONGEST)
    assert read(path, format, limit=3, longest_row=LONGEST)[0] == ["one", None]  # the limit counts bad rows
    assert read(path, format, text_column="n")[1]["skipped"] == {"wrong_type": 6}
    assert read(path, format, text_column="body") == (
        [],
        {"read": 6, "skipped": {"missing_column": 6}, "files_skipped": {}},
    )
    assert refuse(path, format, text_column="body").endswith("no column 'body'; it has n, text")


@pytest.mark.parametrize("kind", ["parquet", "file", "stream", "disk"])
def test_a_column_of_another_type_is_never_converted(tmp_path: Path, kind: str) -> None:
    late = pa.array([2**62, None, 0], pa.timestamp("us"))  # Python has no such date
    ids = pa.array([[1, 2], None, [2**62]], pa.list_(pa.timestamp("us")))
    table = pa.table({"text": late, "ids": ids, "bytes": [b"a", None, b"c"]})
    path = tmp_path / "a"
    if kind == "disk":
        import datasets

        datasets.Dataset(table).save_to_disk(path)
    else:
        path.write_bytes(arrow(table, kind))
    format = {"file": "arrow", "stream": "arrow"}.get(kind, kind)
    for column, type_ in (("text", "timestamp[us]"), ("ids", "list<element: timestamp[us]>"), ("bytes", "binary")):
        texts, counts = read(path, format, text_column=column)
        assert texts == [None]
        assert counts == {"read": 3, "skipped": {"wrong_type": 2}, "files_skipped": {}}
        message = refuse(path, format, text_column=column).replace("item:", "element:")
        assert message.endswith(f"a, row 1, column '{column}': text expected, or a list of token ids, not {type_}")


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_a_column_that_is_there_twice(tmp_path: Path, kind: str) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["text", "text", "body"])
    path = tmp_path / "a"
    path.write_bytes(arrow(table, kind))
    format = {"file": "arrow", "stream": "arrow"}.get(kind, kind)
    for bad_rows in ("error", "skip"):
        message = refuse(path, format, bad_rows=bad_rows)
        assert message.endswith("a: has several columns 'text'; rename all but the one that is meant")
    assert read(path, format, text_column="body")[0] == ["c"]


@pytest.mark.parametrize("kind", ["fixed", "view", "large", "null", "dictionary", "extension"])
def test_every_kind_of_text_and_of_lists(tmp_path: Path, kind: str, foreign_tokenizer: Path) -> None:
    lists = {"fixed": pa.list_(pa.int16(), 2), "view": pa.list_view(pa.int32()), "large": pa.large_list(pa.uint64())}
    texts = ["one", None, "fünf", "one"]
    if kind in lists or kind == "null":
        ids = load_tokenizer(foreign_tokenizer).encode("zoo zo", add_special_tokens=False)[:2]
        column = pa.array([ids, None] if kind in lists else [[], None], lists.get(kind, pa.list_(pa.null())))
        options = {"text_column": "x", "ids_column": "ids", "tokenizer": str(foreign_tokenizer)}
        name, expected = "ids", [load_tokenizer(foreign_tokenizer).decode(ids) if kind in lists else "", None]
    else:
        column = pa.array(texts).dictionary_encode()
        if kind == "extension":
            column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts))
        options, name, expected = {}, "text", texts
    (tmp_path / "a.arrow").write_bytes(arrow(pa.table({name: column}), "file"))
    assert read(tmp_path / "a.arrow", "arrow", **options)[0] == expected


def test_a_dictionary_with_bad_values_and_indices(tmp_path: Path) -> None:
    values = pa.array([b"one", b"\xff", b"x" * (LONGEST + 1)]).cast(pa.binary()).view(pa.string())
    for indices, expected in (([0, 1, 2, None, 0], 5), ([0, 7, 0], 1), ([0, -1, 0], 1)):
        column = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), values, safe=False)
        (tmp_path / "a.arrow").write_bytes(arrow(pa.table({"text": column}), "file", rows=9))
        texts, counts = read(tmp_path / "a.arrow", "arrow", longest_row=LONGEST)
        assert counts["read"] == expected or counts["read"] == 0  # a whole batch is checked first
        if expected == 5:
            assert texts == ["one", None, "one"]
            assert counts["skipped"] == {"not_utf8": 1, "oversized": 1}
        else:
            assert counts["files_skipped"] == {"damaged": 1}


def test_a_byte_order_mark_and_nothing_else_in_the_first_line(tmp_path: Path) -> None:
    for first in (b"\n", b" \r\n", b""):
        (tmp_path / "a.jsonl").write_bytes(codecs.BOM_UTF8 + first + b'{"text": "a"}\n')
        assert read(tmp_path / "a.jsonl", "jsonl") == (["a"], {"read": 1, "skipped": {}, "files_skipped": {}})
    (tmp_path / "a.jsonl").write_bytes(codecs.BOM_UTF8)
    assert read(tmp_path / "a.jsonl", "jsonl")[1]["read"] == 0
    (tmp_path / "a.jsonl").write_bytes(b"\n" + codecs.BOM_UTF8 + b"\n")  # a mark is one in front of all only
    assert read(tmp_path / "a.jsonl", "jsonl")[1]["skipped"] == {"not_json": 1}


def test_text_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    (tmp_path / "c.txt").write_bytes(b"x" * (LONGEST + 1))
    (tmp_path / "d.txt").write_bytes(b"x" * LONGEST)
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"fine " * 20)[:-9])
    (tmp_path / "f.txt.zst").write_bytes(zstandard.compress(b"two ") + zstandard.compress(b"frames"))
    texts, counts = read(tmp_path, "text", longest_row=LONGEST)
    assert texts == ["fine", "x" * LONGEST, "two frames"]
    assert counts == {
        "read": 5,
        "skipped": {"not_utf8": 1, "oversized": 1},
        "files_skipped": {"damaged": 1},
    }
    assert "c.txt: above longest_row, 120 bytes" in refuse(tmp_path / "c.txt", "text", longest_row=LONGEST)


def test_an_archive_of_several_files_is_refused_and_not_read_in_part(tmp_path: Path) -> None:
    for count in (1, 2):
        with zipfile.ZipFile(tmp_path / "a.txt.zip", "w") as archive:
            for number in range(count):
                archive.writestr(f"{number}.txt", "text")
        if count == 1:
            assert read(tmp_path / "a.txt.zip", "text")[0] == ["text"]
    with pytest.raises(CorpusError, match=r"a\.txt\.zip: a zip archive of one file expected; it has 2"):
        read(tmp_path / "a.txt.zip", "text")


def test_a_line_of_100_megabytes_takes_the_memory_of_the_longest_row(tmp_path: Path) -> None:
    good = b'{"text": "good"}\n'
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(good)
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + good)
    tracemalloc.start()
    try:
        texts, counts = read(path, "jsonl", longest_row=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert texts == ["good", "good"]
    assert counts["skipped"] == {"oversized": 1}


# Files that are cut short -------------------------------------------------------------------------------

TABLE = pa.table({"text": [f"text {number} " * 20 for number in range(40)]})
LINES = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TABLE["text"].to_pylist())
CUT = {
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.zst": zstandard.compress(LINES),
    "a.parquet": arrow(TABLE, "parquet"),
    "a.arrow": arrow(TABLE, "stream"),
    "b.arrow": arrow(TABLE, "file"),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
@pytest.mark.parametrize("name", CUT)
def test_of_a_file_that_is_cut_the_rows_in_front_are_kept_and_the_loss_is_told(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    whole = CUT[name]
    (tmp_path / name).write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    (tmp_path / f"z-{name}").write_bytes(whole)
    format = {"gz": "jsonl", "zst": "jsonl"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    texts, counts = read(tmp_path, format)
    expected = TABLE["text"].to_pylist()
    assert texts == expected[: len(texts) - 40] + expected
    assert counts == {"read": len(texts), "skipped": {}, "files_skipped": {"damaged": 1}}
    message = refuse(tmp_path / name, format)
    assert name in message
    assert "can't be read" in message


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_whole_batches_in_front_of_a_cut_are_kept(tmp_path: Path, kind: str) -> None:
    whole = arrow(TABLE, kind)
    (tmp_path / "a.arrow").write_bytes(whole[: len(whole) // 2])
    texts, _ = read(tmp_path / "a.arrow", "arrow")
    assert 10 <= len(texts) < 40


def test_a_stream_that_ends_between_two_batches_is_no_whole_one(tmp_path: Path) -> None:
    whole = arrow(TABLE, "stream")
    (tmp_path / "a.arrow").write_bytes(whole[:-8])  # the mark at the end, and nothing else, is missing
    texts, counts = read(tmp_path / "a.arrow", "arrow")
    assert len(texts) == 40
    assert counts["files_skipped"] == {"damaged": 1}


def test_a_flipped_bit_in_a_checked_parquet_page(tmp_path: Path) -> None:
    content = bytearray(CUT["a.parquet"])
    content[content.index(b"text 12 text 12")] ^= 1
    (tmp_path / "a.parquet").write_bytes(content)
    texts, counts = read(tmp_path / "a.parquet", "parquet")
    assert texts == TABLE["text"].to_pylist()[: len(texts)]
    assert len(texts) < 12
    assert counts["files_skipped"] == {"damaged": 1}


@pytest.mark.parametrize("name", [*CUT, "a.txt"])
def test_storage_that_fails_ends_the_stage_even_where_bad_rows_are_skipped(
    name: str, memory_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CUT.get(name, b"text " * 100)

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() + len(super().getbuffer()[self.tell() :][:size]) >= len(content) // 2:
                raise OSError("connection reset")
            return super().read(size)

    fs = MemoryFileSystem()
    fs.pipe_file(f"/corpus-tests/{name}", content)
    monkeypatch.setattr(MemoryFileSystem, "open", lambda *_, **__: Failing(content))
    format = {"gz": "jsonl", "zst": "jsonl", "txt": "text"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    with pytest.raises(CorpusError, match=f"{name}: can't be read: connection reset"):
        read(f"{memory_root}/{name}", format)


# Ids of another tokenizer -------------------------------------------------------------------------------


def ids_file(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps({"ids": row}) + "\n" for row in rows))
    return path


def test_ids_that_another_tokenizer_made_are_found(tmp_path: Path, tokenizer: Path, foreign_tokenizer: Path) -> None:
    ours, other = load_tokenizer(tokenizer), load_tokenizer(foreign_tokenizer)
    text = "The quick brown fox jumps over the lazy dog. ZEBRA zoo! def add(a, b): return 東京 and 🦊 too.\n" * 8
    right = other.encode(text, add_special_tokens=False)
    wrong = [token % len(other) for token in ours.encode(text, add_special_tokens=False)]
    # Begun and ended inside a character; several documents laid end to end, each encoded for itself.
    inside = other.encode("🦊" * 40, add_special_tokens=False)[1:-1]
    joined = [token for _ in range(60) for token in [*other("Zebra. Zo").input_ids, other.eos_token_id]]
    path = ids_file(tmp_path / "a.jsonl", [right, right[3:] + wrong[:2], inside, joined, wrong[:31], wrong, [10**6]])
    options = {"ids_column": "ids", "tokenizer": str(foreign_tokenizer)}
    texts, counts = read(path, "jsonl", **options)
    assert len(texts) == 5
    assert texts[0] == text
    assert texts[3] == "Zebra. Zo" * 60
    assert counts["skipped"] == {"other_tokenizer": 1, "outside_vocabulary": 1}
    assert "a.jsonl, line 6, column 'ids': made by another tokenizer" in refuse(path, "jsonl", **options)


def test_home_is_expanded(tmp_path: Path, foreign_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "other").symlink_to(foreign_tokenizer)
    ids = load_tokenizer(foreign_tokenizer).encode("zoo")
    ids_file(tmp_path / "a.jsonl", [ids])
    assert read("~/a.jsonl", "jsonl", ids_column="ids", tokenizer="~/other")[0] == ["zoo"]
    datasets.Dataset.from_dict({"text": ["one"]}).save_to_disk(tmp_path / "d")
    assert read("~/d", "disk")[0] == ["one"]
