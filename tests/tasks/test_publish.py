"""Publishing to URLs and to a stand-in for the hub: what arrives, what is refused, what an interruption leaves."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest
from hub_server import hub_server
from huggingface_hub import constants

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore
from longrecipe_core.artifacts.location import open_location
from longrecipe_core.errors import ArtifactMissingError, LongRecipeError, PublishError, StoreError
from longrecipe_core.publishing import model_files, publish_files, to_url
from tasks.publish import publish_report, report_of_artifact

NAMES = ["README.md", "config.json", "model.safetensors", "needles.png", "nll.png", "tokenizer.json"]


@pytest.fixture(scope="module")
def files(reported):
    return model_files(reported.store, reported.refs["merge"], reported.refs["report"])


@pytest.fixture
def log():
    return [].append


def whole(directory, files):
    """Whether the files, and no others, lie in a directory with their bytes."""
    found = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
    return found == {file.name: file.path.read_bytes() for file in files}


def test_what_is_published(reported, files, tmp_path, log):
    assert [file.name for file in files] == NAMES  # nothing of about/
    done = publish_report(reported.store, reported.refs["report"], str(tmp_path / "a" / "b"), False, False, log)
    assert whole(tmp_path / "a" / "b", files)
    assert (done.target, done.files, done.sent) == (str(tmp_path / "a" / "b"), 6, 6)
    assert done.bytes == sum(file.path.stat().st_size for file in files)
    again = publish_report(reported.store, reported.refs["report"], str(tmp_path / "a" / "b"), False, False, log)
    assert again.sent == 0


def test_any_filesystem(files, log):
    memory = fsspec.filesystem("memory")
    publish_files(files, "memory://published/model", log=log)
    assert {path.rsplit("/", 1)[1]: memory.cat_file(path) for path in memory.find("/published/model")} == {
        file.name: file.path.read_bytes() for file in files
    }
    memory.pipe_file("/published/model/config.json", b"{}")
    memory.pipe_file("/published/model/old.bin", b"old")
    with pytest.raises(PublishError, match="holds another model"):
        publish_files(files, "memory://published/model", log=log)
    assert publish_files(files, "memory://published/model", replace=True, log=log).sent == 1
    assert len(memory.find("/published/model")) == 6
    memory.rm("/published", recursive=True)


def test_something_else_is_never_overwritten_unasked(files, tmp_path, log):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("other")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("mine")
    with pytest.raises(PublishError, match=r"holds another model \(config.json, pytorch_model.bin\); --replace"):
        publish_files(files, str(tmp_path), log=log)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", "config.json", "pytorch_model.bin"]
    publish_files(files, str(tmp_path), replace=True, log=log)
    assert (tmp_path / ".git" / "HEAD").read_text() == "mine"
    shutil.rmtree(tmp_path / ".git")
    assert whole(tmp_path, files)


def test_what_is_no_model_stays_even_when_asked(files, tmp_path, log):
    (tmp_path / "thesis.tex").write_text("years")
    for replace in (False, True):
        with pytest.raises(PublishError, match=r"holds something that is no model \(thesis.tex\)"):
            publish_files(files, str(tmp_path), replace=replace, log=log)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_publish_is_no_model_and_goes_on(files, tmp_path, log, monkeypatch):
    """After each number of files in turn, in the middle of the next: config.json is never there before the end."""
    put = to_url._put
    for after in range(len(files)):
        place = tmp_path / str(after)
        sent = []

        def stop(file, where, after=after, sent=sent):
            if len(sent) == after:
                Path(where.path, file.name).write_bytes(file.path.read_bytes()[:1])
                raise KeyboardInterrupt
            put(file, where)
            sent.append(file.name)

        monkeypatch.setattr(to_url, "_put", stop)
        with pytest.raises(KeyboardInterrupt):
            publish_files(files, str(place), log=log)
        if after < len(files) - 1:
            assert not (place / "config.json").exists()
        monkeypatch.setattr(to_url, "_put", put)
        assert publish_files(files, str(place), log=log).sent == len(files) - after
        assert whole(place, files)


def test_an_interrupted_replacement_is_no_model_either(files, tmp_path, log, monkeypatch):
    shutil.copytree(files[1].path.parent, tmp_path / "model", ignore=shutil.ignore_patterns("about"))
    (tmp_path / "model" / "extra.safetensors").write_bytes(b"of an older model")

    def stop(file, where):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(to_url, "_put", stop)
        with pytest.raises(PublishError, match="model: no space left"):
            publish_files(files, str(tmp_path / "model"), replace=True, log=log)
    assert not (tmp_path / "model" / "config.json").exists()
    other = [file for file in files if file.name != "nll.png"]
    with pytest.raises(PublishError, match="another model was begun"):
        publish_files(other, str(tmp_path / "model"), log=log)
    publish_files(files, str(tmp_path / "model"), log=log)
    assert whole(tmp_path / "model", files)


def test_other_bytes_that_arrive_are_told(files, tmp_path, log, monkeypatch):
    put = to_url._put

    def damage(file, where):
        put(file, where)
        if file.name == "model.safetensors":
            Path(where.path, file.name).write_bytes(file.path.read_bytes()[:-1] + b"?")

    monkeypatch.setattr(to_url, "_put", damage)
    with pytest.raises(PublishError, match=r"model\.safetensors: other bytes arrived"):
        publish_files(files, str(tmp_path), log=log)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("s3://key:secret@bucket/model", StoreError),
        ("hf://user:secret@org/model", PublishError),
        ("hf://model", PublishError),
        ("hf://org/model/more", PublishError),
        ("simplecache::s3://bucket/model", StoreError),
        ("nonsense://x", StoreError),
    ],
)
def test_targets_that_are_refused(files, target, error, log):
    with pytest.raises(error) as refused:
        publish_files(files, target, log=log)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_which_model_a_uri_means(reported, tmp_path):
    merged, report = reported.refs["merge"], reported.refs["report"]
    for uri in (report.uri, merged.uri, str(Path(merged.uri).parent)):
        store, found = report_of_artifact(uri, tmp_path)
        assert (store.root, found) == (reported.store.root, report)
    with pytest.raises(PublishError, match=r"no report in .* is about this checkpoint"):
        report_of_artifact(reported.refs["extend"].uri, tmp_path)
    with pytest.raises(PublishError, match="artifact of kind index"):
        report_of_artifact(reported.refs["index"].uri, tmp_path)
    with pytest.raises(ArtifactMissingError):
        report_of_artifact(str(tmp_path / "checkpoint" / "0123456789abcdef"), tmp_path)


def test_a_model_that_was_made_anew_has_not_this_report(reported, tmp_path, log):
    shutil.copytree(reported.store.root, tmp_path / "store")
    store = ArtifactStore(tmp_path / "store", tmp_path / "cache")
    refs = {
        name: ArtifactRef(**ref.model_dump() | {"uri": ref.uri.replace(reported.store.root, store.root)})
        for name, ref in reported.refs.items()
    }
    store.set_aside(refs["merge"], "for the test")
    with pytest.raises(PublishError, match="is gone or was made anew"):
        publish_report(store, refs["report"], str(tmp_path / "target"), False, False, log)
    assert not (tmp_path / "target").exists()


@pytest.fixture
def hub(monkeypatch):
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
        yield server


def test_the_hub_gets_one_commit(hub, files, log):
    done = publish_files(files, "hf://org/model", private=True, log=log)
    repository = hub.repositories["org/model"]
    assert repository.private
    assert len(repository.commits) == 1
    assert {name: data for name, data in repository.files.items() if name != ".gitattributes"} == {
        file.name: file.path.read_bytes() for file in files
    }
    assert (done.target, done.files, done.sent) == ("hf://org/model", 6, 6)
    assert hub.tokens == {"hf_of_the_test"}
    assert publish_files(files, "hf://org/model", log=log).sent == 0
    assert len(repository.commits) == 1


def test_something_else_on_the_hub_stays_unless_asked(hub, files, log):
    publish_files(files, "hf://org/model", log=log)
    repository = hub.repositories["org/model"]
    repository.files["old.bin"] = b"old"
    repository.files["config.json"] = json.dumps({"other": 1}).encode()
    before = dict(repository.files)
    with pytest.raises(PublishError, match=r"holds something else .*--replace"):
        publish_files(files, "hf://org/model", log=log)
    assert repository.files == before
    assert publish_files(files, "hf://org/model", replace=True, log=log).sent == 1
    assert "old.bin" not in repository.files
    with pytest.raises(PublishError, match="is there, and public"):
        publish_files(files, "hf://org/model", private=True, log=log)


def test_what_the_hub_says_is_one_line_without_the_token(hub, files, log, monkeypatch):
    hub.damage = True
    with pytest.raises(PublishError, match=r"other bytes arrived than were sent, of model\.safetensors"):
        publish_files(files, "hf://org/damaged", log=log)
    hub.damage, hub.refuse = False, "You have no right to write here"
    with pytest.raises(PublishError, match="You have no right") as refused:
        publish_files(files, "hf://org/refused", log=log)
    assert "\n" not in str(refused.value)
    assert "hf_of_the_test" not in str(refused.value)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match="hf://org/away: "):
        publish_files(files, "hf://org/away", log=log)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(LongRecipeError, match="HF_TOKEN is not set"):
        publish_files(files, "hf://org/model", log=log)


def test_only_the_hub_knows_private(files, tmp_path, log):
    with pytest.raises(PublishError, match="private is for the hub only"):
        publish_files(files, str(tmp_path / "x"), private=True, log=log)
    assert open_location(tmp_path / "x").children() == []
