"""What an evaluation that was killed had measured is found again for the same models only."""

import shutil

import pytest
import yaml
from smallest_recipe import RECIPE

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, Lease, fingerprint
from longrecipe_core.recipe import Recipe
from tasks.evaluation import measurements_file
from tasks.run import Run, Work
from tasks.stages import STAGES


@pytest.fixture
def committed(tmp_path):
    """Commits a checkpoint under one and the same key, whatever its bytes are, in place of the last one."""
    store, key = ArtifactStore(tmp_path / "store", cache=tmp_path / "cache"), fingerprint("anneal")

    def commit(content: bytes) -> Work:
        earlier = store.find("checkpoint", key)
        if earlier is not None:
            store.set_aside(store.ref(earlier), "made again", "replaced")
        directory = tmp_path / "made"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(content)
        model = store.commit("checkpoint", key, directory, recipe={}, seconds=0)
        tokens = ArtifactRef(uri="documents", kind="outside", fingerprint=fingerprint("documents"))
        return Work(
            run=Run(recipe=Recipe.parse(yaml.safe_dump(RECIPE)), store=store.root),
            store=store,
            stage=STAGES["measure"],
            key=fingerprint("measure"),
            inputs={"model": model, "tokenize": tokens},
            output=tmp_path / "staging" / "output",
            log=print,
            lease=Lease(store, fingerprint("measure")),
        )

    return commit


def test_measurements_are_of_the_inputs_content(committed):
    first = measurements_file(committed(b"weights"))
    assert first.parent.name == "staging"
    assert measurements_file(committed(b"weights")) == first
    assert measurements_file(committed(b"other weights")) != first
