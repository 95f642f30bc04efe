"""Compressed files that are cut, damaged or empty: what comes out of them, against the decompressors themselves."""

import bz2
import gzip
import io
import json
import lzma
import random
import zipfile
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_rows import read, refuse

from longrecipe_core.errors import CorpusError

# Some megabytes that don't compress well, so that every decompressor works in several parts.
_DRAW = random.Random(0)
NOISE = b"".join(
    b'{"text": "%d %s"}\n' % (n, _DRAW.randbytes(_DRAW.randrange(300)).hex().encode()) for n in range(4000)
)
MANY = {
    "gz": gzip.compress(NOISE),
    "bz2": bz2.compress(NOISE, 1),
    "xz": lzma.compress(NOISE, preset=0),
    "zst": zstandard.compress(NOISE),
}
LINES = NOISE[:9000]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_every_whole_line_in_front_of_a_cut_comes_out(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    whole = MANY[suffix]
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(cut)
    texts, counts = read(tmp_path / f"a.jsonl.{suffix}", "jsonl")
    plain = {"gz": lambda: zlib.decompressobj(31), "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}[suffix]()
    lines = plain.decompress(cut).split(b"\n")[:-1]
    assert texts == [json.loads(line)["text"] for line in lines]
    assert counts["files_skipped"] == {"damaged": 1}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_of_a_cut_zstd_file_at_most_8_kilobytes_are_lost(tmp_path: Path, data: st.DataObject) -> None:
    cut = MANY["zst"][: data.draw(st.integers(1, len(MANY["zst"]) - 1))]
    (tmp_path / "a.jsonl.zst").write_bytes(cut)
    texts, counts = read(tmp_path / "a.jsonl.zst", "jsonl")
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(cut).split(b"\n")[:-1]
    assert texts == [json.loads(line)["text"] for line in lines[: len(texts)]]
    assert sum(map(len, lines[len(texts) :])) <= 8192
    assert counts["files_skipped"] == {"damaged": 1}


@pytest.mark.parametrize("format", ["text", "jsonl"])
@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst", "zip"])
def test_nothing_is_no_compressed_file(tmp_path: Path, suffix: str, format: str) -> None:
    path = tmp_path / f"a.{format}.{suffix}"
    path.write_bytes(b"")
    assert read(path, format) == ([], {"read": 0, "skipped": {}, "files_skipped": {"damaged": 1}})
    assert f"a.{format}.{suffix}: can't be read" in refuse(path, "text")


def test_a_zip_archive_that_is_encrypted_or_packed_in_an_unknown_way(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a", LINES)
    whole = sink.getvalue()
    entry = whole.index(b"PK\1\2")  # bytes 6 and 8 of the member's head are flags and method; here 8 and 10
    encrypted, unknown = bytearray(whole), bytearray(whole)
    encrypted[6] = encrypted[entry + 8] = 1
    unknown[8] = unknown[entry + 10] = 99
    for content, message in ((encrypted, "is encrypted"), (unknown, "method is not supported")):
        for format in ("text", "jsonl"):
            (tmp_path / "a.zip").write_bytes(content)
            counts = read(tmp_path / "a.zip", format)[1]
            assert counts == {"read": 0, "skipped": {}, "files_skipped": {"damaged": 1}}
            assert message in refuse(tmp_path / "a.zip", format)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_whatever_happens_to_a_zip_archive_nothing_but_corpus_errors(tmp_path: Path, data: st.DataObject) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", LINES[:300])
    content = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.zip").write_bytes(content[data.draw(st.integers(0, 9)) :])
    message = None
    try:
        read(tmp_path / "a.zip", "jsonl")
    except CorpusError as error:
        message = str(error)
    assert message is None or "a.zip: a zip archive of one file expected" in message
