"""What a stage leaves in its staging directory can't undo its artifact."""

import yaml

from longrecipe_core.artifacts import ArtifactRef, fingerprint
from longrecipe_core.recipe import Recipe
from tasks.run import Run, settle

RECIPE = {
    "name": "x",
    "model": {"path": "some/model"},
    "context": {"target_length": 128, "train_length": 40},
    "corpus": {"sources": [{"path": "documents"}]},
    "extend": {"learning_rate": 1e-3},
    "replay": {"sources": [{"path": "replay"}]},
    "anneal": {"learning_rate": 1e-4},
}
INPUTS = {
    name: ArtifactRef(uri=f"outside/{name}", kind="outside", fingerprint=fingerprint(name))
    for name in ("base", "anneal")
}


def test_a_staging_directory_that_can_not_be_removed_fails_no_committed_stage(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    run = Run(recipe=Recipe.parse(yaml.safe_dump(RECIPE)), store=str(tmp_path / "store"))

    def make(work):
        (work.output / "data.txt").write_text("made")
        staging = work.output.parent
        staging.rename(tmp_path / "elsewhere")
        staging.symlink_to(tmp_path / "elsewhere")  # rmtree refuses it, also for root
        return {}

    caplog.set_level("INFO", "longrecipe")
    assert settle(run, "merge", INPUTS, make).status == "ran"
    assert "could not be removed" in caplog.text
    assert settle(run, "merge", INPUTS, make).status == "hit"
