import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longrecipe_core.corpus import Counts, iterate_documents, resolve_source, source_digest
from longrecipe_core.errors import CorpusError
from longrecipe_core.recipe.sections import SourceSection

TEXTS = ["one\r\ntwo", "Grüße 🦊", "", "four", None, "2024-01-01"]


def write(url: str, content: bytes) -> str:
    fs, path = fsspec.core.url_to_fs(url)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as file:
        file.write(content)
    return url


def json_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def arrow_bytes(table: pa.Table, kind: str, rows_per_batch: int = 2) -> bytes:
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink, row_group_size=4)
        return sink.getvalue()
    writer = (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(sink, table.schema)
    writer.write_table(table, max_chunksize=rows_per_batch)
    writer.close()
    return sink.getvalue()


def texts(source: SourceSection) -> list[str | None]:
    return [document.text for document in iterate_documents(source)]


# Formats ------------------------------------------------------------------------------------------------


def test_text_files_directories_globs_and_compression(root: str) -> None:
    write(f"{root}/b.txt", b"\xef\xbb\xbfsecond\r\n")
    write(f"{root}/a.txt", "första".encode())
    write(f"{root}/deep/c.txt.gz", gzip.compress(b"third"))
    write(f"{root}/.hidden/d.txt", b"not read")
    assert texts(SourceSection(path=f"{root}/b.txt")) == ["second\r\n"]
    assert texts(SourceSection(path=root)) == ["första", "second\r\n", "third"]
    assert texts(SourceSection(path=f"{root}/*.txt")) == ["första", "second\r\n"]
    assert texts(SourceSection(path=root, limit=2)) == ["första", "second\r\n"]


def test_json_lines(root: str) -> None:
    rows = json_lines([{"text": text, "other": number} for number, text in enumerate(TEXTS)])
    write(f"{root}/b.jsonl", b"\xef\xbb\xbf" + rows + b"\n")
    write(f"{root}/a.json.gz", gzip.compress(json_lines([{"text": "first"}]).rstrip()))
    write(f"{root}/README.md", b"not JSON")
    assert texts(SourceSection(path=root, format="jsonl")) == ["first", *TEXTS]


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_columnar(root: str, kind: str) -> None:
    table = pa.table({"id": range(len(TEXTS)), "body": TEXTS})
    name = "x[1] y.parquet" if kind == "parquet" else "x[1] y.arrow"
    format = "parquet" if kind == "parquet" else "arrow"
    write(f"{root}/{name}", arrow_bytes(table, kind))
    write(f"{root}/README.md", b"nothing")
    assert texts(SourceSection.model_validate({"path": root, "format": format, "text_column": "body"})) == TEXTS


def test_disk(root: str) -> None:
    import datasets

    single = datasets.Dataset.from_dict({"text": TEXTS})
    single.save_to_disk(f"{root}/single")
    datasets.DatasetDict({"train": single, "test": single.select([3])}).save_to_disk(f"{root}/both")
    assert texts(SourceSection(path=f"{root}/single", format="disk")) == TEXTS
    assert texts(SourceSection(path=f"{root}/both", format="disk", split="test")) == ["four"]
    with pytest.raises(CorpusError, match=r"no split 'dev'; it has test, train"):
        texts(SourceSection(path=f"{root}/both", format="disk", split="dev"))


def test_hub_is_streamed_at_its_commit_with_the_token_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    from longrecipe_core.corpus import hub

    write(f"{tmp_path}/data/train-0.parquet", arrow_bytes(pa.table({"text": TEXTS}), "parquet"))
    asked: list[Any] = []
    real = datasets.load_dataset

    def load_dataset(path: str, **options: Any) -> Any:
        asked.append((path, options))
        return real(str(tmp_path), split=options["split"], streaming=options["streaming"])

    class Api:
        def __init__(self, token: object) -> None:
            asked.append(token)

        def dataset_info(self, name: str, revision: str | None) -> SimpleNamespace:
            return SimpleNamespace(sha={None: "c0ffee", "v1": "beef"}[revision])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setenv("HF_TOKEN", "secret")
    source = resolve_source(SourceSection(path="some/set", format="hub", subset="en"))
    assert source.revision == "c0ffee"
    assert texts(source) == TEXTS
    expected = {"name": "en", "split": "train", "revision": "c0ffee", "streaming": True, "token": "secret"}
    assert asked == ["secret", ("some/set", expected)]
    monkeypatch.delenv("HF_TOKEN")
    tagged = source.model_copy(update={"revision": "v1"})
    digests = {source_digest(one) for one in (tagged, tagged, source.model_copy(update={"revision": None}))}
    assert len(digests) == 2
    assert asked[2:] == [False] * 3  # no token: also none that is stored on the machine


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("longrecipe_core.corpus.hub.HfApi", lambda token: _api(token))
    with pytest.raises(CorpusError, match="hub dataset some/set: no commit to be had"):
        source_digest(SourceSection(path="some/set", format="hub"))


def _api(token: object) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint="http://127.0.0.1:9", token=False)


def test_instruction_columns(tmp_path: Path) -> None:
    rows = [{"q": "Why?", "a": "Because."}, {"q": None, "a": "x"}, {"q": "y", "a": None}]
    write(f"{tmp_path}/a.jsonl", json_lines(rows))
    source = SourceSection(path=f"{tmp_path}/a.jsonl", format="jsonl", prompt_column="q", response_column="a")
    found = [(document.prompt, document.text, document.instruction) for document in iterate_documents(source)]
    assert found == [("Why?", "Because.", True), (None, "x", True), ("y", None, True)]


def test_python_docstrings(tmp_path: Path) -> None:
    code = '''
"""Module docstrings have no signature."""
class A(B, metaclass=M):
    """  A class.

        Indented.
    """
    async def f(self, x: int = 1, *rest, key: str = "k", **more) -> list[int]:
        """Asynchronous."""
        def inner(): "Inner."
    def silent(self): return 1
def last(a, /, b): """Bad \\d escape."""
def surrogate(): "\\ud800"
class C: """Plain."""
'''
    write(f"{tmp_path}/a.py", code.encode())
    write(f"{tmp_path}/b.py", b"print 'Python 2'")
    write(f"{tmp_path}/c.py", b"x = '\xff'")
    write(f"{tmp_path}/d.py", b"# -*- coding: latin-1 -*-\ndef g():\n  '\xe4'\n")
    counts = Counts()
    source = SourceSection(path=str(tmp_path), format="python-docstrings")
    found = [(one.prompt, one.text) for one in iterate_documents(source, counts=counts)]
    assert found == [
        ("class A(B, metaclass=M):", "A class.\n\nIndented."),
        ("async def f(self, x: int=1, *rest, key: str='k', **more) -> list[int]:", "Asynchronous."),
        ("def inner():", "Inner."),
        ("def last(a, /, b):", "Bad \\d escape."),
        ("class C:", "Plain."),
        ("def g():", "ä"),
    ]
    assert counts.as_dict() == {"read": 6, "skipped": {}, "files_skipped": {"unparsable": 2}}
    assert len(list(iterate_documents(source.model_copy(update={"limit": 2})))) == 2


def test_the_standard_library_without_packages_tests_and_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "test/x",
        "site-packages/p/x",
        "json/tests/x",
        "idlelib/idle_test/x",
        "lib2to3/tests/data/x",
        "_sysconfigdata__linux_x86_64-linux-gnu",
        "_sysconfig_vars__linux_x86_64-linux-gnu",
        "config-3.14-x86_64-linux-gnu/python-config",
    ):
        write(f"{tmp_path}/tests/{name}.py", b"no = 1")  # `tests` above the library must not count
    # Of a file, such a name says nothing: idlelib has several.
    for name in ("__pycache__/x", "idlelib/config-main", "json/decoder", "os", "unittest/case"):
        write(f"{tmp_path}/tests/{name}.py", name.encode())
    monkeypatch.setattr("sysconfig.get_path", lambda _: f"{tmp_path}/tests")
    source = SourceSection(path="{stdlib}/**/*.py")
    assert texts(source) == ["idlelib/config-main", "json/decoder", "os", "unittest/case"]
    before = source_digest(source)
    write(f"{tmp_path}/tests/site-packages/p/y.py", b"another package")
    assert source_digest(source) == before
    write(f"{tmp_path}/tests/os.py", b"another release")
    assert source_digest(source) != before
    write(f"{tmp_path}/tests/build-details.json", b"{}")
    write(f"{tmp_path}/tests/json/tool.json", b'{"text": "kept"}\n')
    assert texts(SourceSection(path="{stdlib}/**/*.json", format="jsonl")) == ["kept"]
    assert len(texts(SourceSection(path=f"{tmp_path}/**/*.py"))) == 14  # only the placeholder leaves out


def test_the_real_standard_library_reads_as_text() -> None:
    documents = list(iterate_documents(SourceSection(path="{stdlib}/json/*.py")))
    assert any("class JSONDecoder" in (document.text or "") for document in documents)


def test_ids_of_another_tokenizer(tmp_path: Path, foreign_tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(foreign_tokenizer)
    wanted = ["Grüße 🦊 , well . It 's", "zebra\n\n  zoo", ""]
    ids = [[other.bos_token_id, *other(text).input_ids, other.eos_token_id] for text in wanted]
    write(f"{tmp_path}/a.arrow", arrow_bytes(pa.table({"ids": [*ids, None]}), "stream"))
    options = {"path": f"{tmp_path}/a.arrow", "format": "arrow", "ids_column": "ids"}
    source = SourceSection.model_validate({**options, "tokenizer": str(foreign_tokenizer)})
    assert texts(source) == [*wanted, None]
    write(f"{tmp_path}/a.jsonl", json_lines([{"ids": [5, 6]}, {"ids": [5, 290]}]))
    lines = source.model_copy(update={"path": f"{tmp_path}/a.jsonl", "format": "jsonl"})
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 2, column 'ids': ids 5\.\.290, but .* has 0\.\.\d+"):
        texts(lines)
    write(f"{tmp_path}/a.jsonl", json_lines([{"ids": "text"}]))
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 1, column 'ids': a list of token ids expected"):
        texts(lines)


# Errors -------------------------------------------------------------------------------------------------


def complain(root: str, name: str, content: bytes, **options: str) -> str:
    url = write(f"{root}/{name}", content)
    with pytest.raises(CorpusError) as caught:
        texts(SourceSection.model_validate({"path": url, **options}))
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    return message


def test_bad_json_lines_name_file_and_line(root: str) -> None:
    good = json_lines([{"text": "fine"}] * 2)
    for bad, expected in [
        (b'{"text": "cut', "line 3: not JSON"),
        (b'{"text": "\xff"}\n', "line 3: not UTF-8"),
        (b"[1]\n", "line 3: a JSON object expected, not list"),
        (b'{"body": 1, "id": 2}\n', "line 3: no column 'text'; it has body, id"),
        (b'{"text": 7}\n', "line 3, column 'text': text expected, not int"),
        (b'{"text": "\\ud800"}\n', "line 3, column 'text': no UTF-8 form"),
        (b"[" * 100_000, "line 3: not JSON"),
        (b'{"text": "' + b"x" * 1000 + b'"}\n', "line 3: above longest_row, 1000 bytes; raise it, or skip such rows"),
    ]:
        options = {"longest_row": "1000"} if "above" in expected else {}
        assert expected in complain(root, "bad.jsonl", good + bad, format="jsonl", **options)
    lines = json_lines([{"text": str(number) * 50} for number in range(999)])
    assert "can't be read" in complain(root, "cut.jsonl.gz", gzip.compress(lines)[:-400], format="jsonl")


def test_bad_text_names_the_file(root: str) -> None:
    assert "not UTF-8" in complain(root, "bad.txt", b"fine \xff", format="text")
    assert "can't be read" in complain(root, "bad.txt.gz", gzip.compress(b"fine" * 999)[:-9], format="text")
    assert "can't be read" in complain(root, "no.txt.gz", b"no gzip", format="text")


def test_bad_columnar_files_name_file_and_row(root: str) -> None:
    table = pa.table({"text": [f"text {number} " * 50 for number in range(20)], "n": range(20)})
    stream = arrow_bytes(table, "stream", rows_per_batch=5)
    assert "after row 15: can't be read" in complain(root, "cut.arrow", stream[:-600], format="arrow")
    assert "can't be read" in complain(root, "cut.arrow", arrow_bytes(table, "file")[:-9], format="arrow")
    assert "can't be read" in complain(root, "cut.parquet", arrow_bytes(table, "parquet")[:-9], format="parquet")
    assert "can't be read" in complain(root, "empty.parquet", b"", format="parquet")
    for name, kind in (("a.arrow", "stream"), ("a.parquet", "parquet")):
        content, format = arrow_bytes(table, kind), name.rpartition(".")[2]
        message = complain(root, name, content, format=format, text_column="body")
        assert message.endswith("no column 'body'; it has n, text")
        assert "row 1, column 'n': text expected, or a list of token ids, not int64" in complain(
            root, name, content, format=format, text_column="n"
        )
    offsets, data = pa.py_buffer(b"\0\0\0\0\x02\0\0\0\x05\0\0\0"), pa.py_buffer(b"ok\xff\xfe\xfd")
    invalid = pa.table({"text": pa.Array.from_buffers(pa.string(), 2, [None, offsets, data])})
    message = complain(root, "u.parquet", arrow_bytes(invalid, "parquet"), format="parquet")
    assert "row 2, column 'text': not UTF-8" in message


def test_nothing_there(root: str, tmp_path: Path) -> None:
    for path in (f"{root}/none.txt", f"{root}/*.none"):
        with pytest.raises(CorpusError, match="no file there"):
            texts(SourceSection(path=path))
        with pytest.raises(CorpusError, match="no file there"):
            source_digest(SourceSection(path=path))
    with pytest.raises(CorpusError, match="can't be opened"):
        texts(SourceSection(path="nosuchprotocol://x"))
    with pytest.raises(CorpusError, match="can't be read"):
        texts(SourceSection(path=f"{tmp_path}/none", format="disk"))
    options = {"path": write(f"{tmp_path}/a.jsonl", b"{}"), "format": "jsonl", "ids_column": "ids"}
    source = SourceSection.model_validate({**options, "tokenizer": f"{tmp_path}/none"})
    with pytest.raises(CorpusError, match=r"tokenizer .*/none: no such directory; a directory with tokenizer\.json"):
        texts(source)
    with pytest.raises(CorpusError, match=r"tokenizer .*/none: no such directory"):
        source_digest(source)
    (tmp_path / "none").mkdir()
    with pytest.raises(CorpusError, match="can't be loaded"):
        texts(source)


# Identity -----------------------------------------------------------------------------------------------


def test_digest_is_of_content_and_order_not_of_place(root: str, tmp_path: Path, foreign_tokenizer: Path) -> None:
    write(f"{root}/one/a.txt", b"A")
    write(f"{root}/one/b.txt", b"B")
    write(f"{tmp_path}/elsewhere/x.txt", b"A")
    write(f"{tmp_path}/elsewhere/y.txt", b"B")
    source = SourceSection(path=f"{root}/one")
    digest = source_digest(source)
    assert len(digest) == 64
    assert source_digest(SourceSection(path=f"{tmp_path}/elsewhere/*.txt")) == digest
    write(f"{root}/one/a.txt", b"B")
    write(f"{root}/one/b.txt", b"A")
    assert source_digest(source) != digest
    write(f"{root}/one/c.gz", b"A")
    zipped = source_digest(SourceSection(path=f"{root}/one/c.gz"))
    write(f"{root}/one/c", b"A")
    assert source_digest(SourceSection(path=f"{root}/one/c")) != zipped


def test_digest_holds_the_other_tokenizer_but_not_its_weights(tmp_path: Path) -> None:
    write(f"{tmp_path}/a.jsonl", b'{"ids": [1]}')
    options = {"path": f"{tmp_path}/a.jsonl", "format": "jsonl", "ids_column": "ids"}
    write(f"{tmp_path}/model/tokenizer.json", b"1")
    source = SourceSection.model_validate({**options, "tokenizer": f"{tmp_path}/model"})
    digest = source_digest(source)
    write(f"{tmp_path}/model/model.safetensors", b"weights")
    assert source_digest(source) == digest
    write(f"{tmp_path}/model/tokenizer.json", b"2")
    assert source_digest(source) != digest


def test_digest_of_a_disk_dataset(tmp_path: Path) -> None:
    write(f"{tmp_path}/d/data.arrow", b"1")
    source = SourceSection(path=f"{tmp_path}/d", format="disk")
    digest = source_digest(source)
    write(f"{tmp_path}/d/data.arrow", b"2")
    assert source_digest(source) != digest
