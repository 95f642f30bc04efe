"""What publishing never touches: artifacts of a store, and what somebody else has put beside a half-published model."""

from pathlib import Path

import pytest

from longrecipe_core.errors import PublishError
from longrecipe_core.publishing import model_files, publish_files, to_url


@pytest.fixture(scope="module")
def files(reported):
    return model_files(reported.store, reported.refs["merge"], reported.refs["report"])


@pytest.mark.parametrize("below", ["", "about", ".."])
def test_an_artifact_is_no_target(reported, files, below):
    """The model's own directory, above all: source and target would be one."""
    attempt = Path(reported.store.fetch(reported.refs["merge"]))
    before = {path: path.read_bytes() for path in attempt.rglob("*") if path.is_file()}
    target = attempt.parent if below == ".." else attempt / below
    for replace in (False, True):
        with pytest.raises(PublishError, match="is an artifact of a store, and stays as it is"):
            publish_files(files, str(target), replace=replace, log=[].append)
    assert {path: path.read_bytes() for path in attempt.rglob("*") if path.is_file()} == before


def test_what_came_since_an_interruption_stays(files, tmp_path, monkeypatch):
    def stop(file, place):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(to_url, "_put", stop)
        with pytest.raises(KeyboardInterrupt):
            publish_files(files, str(tmp_path), log=[].append)
    (tmp_path / "notes.md").write_text("mine")
    for replace in (False, True):
        with pytest.raises(PublishError, match=r"notes\.md came there since publishing began"):
            publish_files(files, str(tmp_path), replace=replace, log=[].append)
    assert (tmp_path / "notes.md").read_text() == "mine"
    (tmp_path / "notes.md").unlink()
    assert publish_files(files, str(tmp_path), log=[].append).sent == len(files)
