"""A sweep over merges of one run's checkpoints: what it makes, what it says, and where it is shown."""

import base64
import contextlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from safetensors.numpy import load_file

from flows import cli
from longrecipe_core.artifacts import ArtifactStore
from longrecipe_core.evaluation.knee import find_knee

WINDOW = 32
WEIGHTS = [0, 0.4, 0.5, 1]


def call(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["longrecipe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code


def mean_losses(directory: Path, model: str) -> tuple[float, float]:
    """Of the tokens at positions inside and beyond the window, by buckets as they stand in the file."""
    rows = pq.read_table(directory / "evaluation.parquet").to_pylist()
    rows = [row for row in rows if (row["model"], row["measure"]) == (model, "nll")]
    parts = [[row for row in rows if (row["start"] < WINDOW) == short] for short in (True, False)]
    return tuple(np.average([r["value"] for r in part], weights=[r["count"] for r in part]) for part in parts)


@pytest.fixture(scope="module")
def swept(first_run, recipe_file, tmp_path_factory):
    """A store with a run and a sweep; the command's lines, its last line, and where plot and table lie."""
    root = tmp_path_factory.mktemp("swept")
    store, output, told = root / "store", root / "sweep", io.StringIO()
    shutil.copytree(first_run[0], store)
    options = ["--store", str(store), "--weights", *map(str, reversed(WEIGHTS)), "--output", str(output)]
    with contextlib.redirect_stdout(told):
        assert call("merge-sweep", str(recipe_file), *options) == 0
    *lines, last = told.getvalue().splitlines()
    return store, lines, json.loads(last), output


def test_merge_sweep(first_run, swept):
    store, lines, result, output = swept
    made = {outcome.stage: outcome.ref for outcome in first_run[1].outcomes}
    head, *table = [line.split("\t") for line in (output / "merge-sweep.tsv").read_text().splitlines()]
    table = [dict(zip(head, row, strict=True)) for row in table]
    assert [float(row["base_weight"]) for row in table] == WEIGHTS

    # Weights 0 and 1 are the models themselves, 0.5 the run's own merge: only 0.4 had to be merged.
    stages = [(stage["stage"], stage["status"]) for stage in result["stages"]]
    assert stages[-6:] == [("measure", "ran"), ("merge", "ran"), ("measure", "ran"), ("merge", "hit"),
                           ("measure", "ran"), ("measure", "ran")]  # fmt: skip
    digests = {ref: ArtifactStore(store).manifest_of(table[place]["model"]).fingerprint
               for place, ref in ((0, "anneal"), (2, "merge"), (3, "base"))}  # fmt: skip
    assert digests == {name: made[name].fingerprint for name in digests}
    weights = {name: load_file(Path(uri) / "model.safetensors") for name, uri in
               (("base", made["base"].uri), ("anneal", made["anneal"].uri), ("merged", table[1]["model"]))}  # fmt: skip
    for name, tensor in weights["merged"].items():
        expected = 0.4 * weights["base"][name] + 0.6 * weights["anneal"][name]
        np.testing.assert_allclose(tensor, expected, rtol=1e-6, atol=1e-7)

    # So three of them were measured before, by another stage and in another process.
    losses = [(float(row["short"]), float(row["long"])) for row in table]
    for place, name in ((0, "stage 1, annealed"), (2, "stage 2, merged"), (3, "base")):
        assert losses[place] == pytest.approx(mean_losses(Path(made["evaluate"].uri), name), rel=1e-12)

    knee = find_knee(losses)
    assert any(f"base weight {WEIGHTS[knee.place]:g}" in line for line in lines)
    assert result["model"] == table[knee.place]["model"]
    assert [place for place, row in enumerate(table) if row["mark"] in ("knee", "best in both")] == [knee.place]
    with Image.open(output / "merge-sweep.png") as picture:
        picture.verify()


def test_a_sweep_is_shown_by_prefect_and_stages_are_hits_the_second_time(
    swept, recipe_file, tmp_path, monkeypatch, capsys
):
    store = swept[0]
    monkeypatch.chdir(tmp_path)  # plot and table go below the current directory
    assert call("merge-sweep", str(recipe_file), "--store", str(store), "--weights", "0.4", "1") == 0
    printed = capsys.readouterr().out.splitlines()
    assert {stage["status"] for stage in json.loads(printed[-1])["stages"]} == {"hit"}
    assert (tmp_path / "merge-sweep" / "seconds" / "merge-sweep.png").exists()
    wanted = {
        "artifacts": {"key": {"any_": ["seconds-merge-sweep", "seconds-merge-sweep-knee"]}},
        "sort": "CREATED_DESC",
    }
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json=wanted).json()
    newest = {one["type"]: one for one in reversed(found)}
    assert [row["base_weight"] for row in json.loads(newest["table"]["data"])] == [0.4, 1]
    assert newest["markdown"]["description"] in printed
    (picture,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)\)", newest["markdown"]["data"])
    Image.open(io.BytesIO(base64.b64decode(picture))).verify()


def test_a_sweep_without_a_run_is_one_line_and_what_would_do(prefect_api, recipe_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("merge-sweep", str(recipe_file), "--store", str(tmp_path / "empty")) == 1
    told = capsys.readouterr().err
    assert "longrecipe: base: comes before start_from merge" in told
    assert f"longrecipe run {recipe_file}" in told
    assert call("merge-sweep", str(recipe_file), "--weights", "1.5") == 2
    assert "'1.5' must be a number from 0 to 1" in capsys.readouterr().err
