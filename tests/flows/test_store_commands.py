"""`longrecipe runs`, `show` and `gc`, on stores that a few lines made."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from smallest_recipe import RECIPE

from flows.cli import parser
from flows.collect import hit_by, human, kept_runs
from longrecipe_core.artifacts import Adopted, ArtifactRef, ArtifactStore, RunRecords, StageRecord, new_record
from longrecipe_core.artifacts.garbage import find_rubbish
from longrecipe_core.artifacts.manifest import new_attempt
from longrecipe_core.errors import StoreError
from longrecipe_core.recipe import Recipe, stage_part
from tasks.run import Run, settle

OUTSIDE = ArtifactRef(uri="some/model", kind="outside", fingerprint="0" * 64)
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=400)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path) -> str:
    return f"memory://{tmp_path.name}/commands" if request.param == "memory" else str(tmp_path / "store")


def recipe(*overrides: str) -> Recipe:
    return Recipe.parse(yaml.safe_dump(RECIPE), overrides)


def made(root: str, name: str, inputs: dict, *overrides: str):
    def make(work):
        (work.output / "data.txt").write_text(name * 50)
        return {"rows": 3, "losses": [0.5] * 20}

    return settle(Run(recipe=recipe(*overrides), store=root), name, inputs, make)


def recorded(root: str, *outcomes, state="completed", started=LONG_AGO, overrides=(), **more):
    """A run that was made by another process long ago."""
    stages = [
        StageRecord(stage=one.stage, status=one.status, why=one.why, seconds=1, **one.ref.model_dump())
        for one in outcomes
    ]
    run_id = started.strftime("%Y%m%dT%H%M%S%fZ-") + os.urandom(4).hex()
    tree = recipe(*overrides).model_dump(mode="json")
    record = new_record(run_id, "extend-context", "x", tree, stages=tuple(stages), state=state, **more)
    times = {"started": started.isoformat(), "renewed": started.isoformat(), "pid": 2**30}
    record = record.model_copy(update=times | {"ended": started.isoformat() if state != "running" else None})
    records = RunRecords(ArtifactStore(root))
    records.write(record)
    records.write_recipe(run_id, recipe(*overrides).to_yaml())
    return record


def call(*arguments: str) -> int:
    given = parser().parse_args(arguments)
    code: int = given.command(given)
    return code


@pytest.fixture
def old(root):
    """Two merges of one annealed model, a run for each; all as old as can be."""

    def attempt() -> str:
        attempt.count += 1
        return (LONG_AGO + timedelta(minutes=attempt.count)).strftime("%Y%m%dT%H%M%S%fZ-") + os.urandom(4).hex()

    attempt.count = 0
    other = "merge={base_weight: 0.25, trained_weight: 0.75}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longrecipe_core.artifacts.store.new_attempt", attempt)
        patch.setattr("longrecipe_core.artifacts.store.utc_now", LONG_AGO.isoformat)
        annealed = made(root, "anneal", {"extend": OUTSIDE, "replay": OUTSIDE})
        merges = [made(root, "merge", {"base": OUTSIDE, "anneal": annealed.ref}, *more) for more in ((), (other,))]
    first = recorded(root, annealed, merges[0])
    second = recorded(root, merges[1], started=LONG_AGO + timedelta(days=1), overrides=(other,))
    return annealed, merges, first, second


def stands(root: str, outcome) -> bool:
    return ArtifactStore(root).find(outcome.ref.kind, outcome.ref.fingerprint) is not None


def test_all_runs_are_kept_by_default(root, old, capsys):
    assert call("gc", "--store", root, "--delete") == 0
    annealed, merges, *_ = old
    assert all(stands(root, one) for one in (annealed, *merges))
    assert "2 of 2 runs kept" in capsys.readouterr().out


def test_what_only_forgotten_runs_refer_to_goes_but_only_when_asked(root, old, capsys):
    annealed, merges, first, second = old
    call("gc", "--store", root, "--keep-last", "1")
    told = capsys.readouterr().out
    path = "/".join(merges[0].ref.uri.split("/")[-3:])
    assert f"{path}  no kept run refers to it" in told
    assert f"runs/{first.id}.json" in told
    assert "nothing was removed" in told
    assert len(told.splitlines()) == 3
    assert stands(root, merges[0])
    call("gc", "--store", root, "--keep-last", "1", "--delete")
    assert not stands(root, merges[0])
    assert stands(root, merges[1])
    assert stands(root, annealed)  # what the kept one was made from
    records = RunRecords(ArtifactStore(root))
    assert records.ids() == [second.id]
    assert not records.recipe_place(first.id).fs.exists(records.recipe_place(first.id).path)


def test_a_pointer_keeps_what_no_run_does(root, old):
    _, merges, *_ = old
    store = ArtifactStore(root)
    directory = store.location / "pointers"
    directory.fs.makedirs(directory.path, exist_ok=True)
    directory.fs.pipe_file((directory / "latest-x.json").path, json.dumps({"refs": [merges[0].ref.uri]}).encode())
    call("gc", "--store", root, "--keep-last", "1", "--delete")
    assert all(stands(root, one) for one in merges)
    directory.fs.pipe_file((directory / "latest-x.json").path, b"{}")
    with pytest.raises(StoreError, match=r"latest-x\.json: can't be read, so what it keeps is unknown"):
        call("gc", "--store", root)


def test_a_failed_run_keeps_what_it_will_find_when_it_is_resumed(root, old):
    """It got nowhere, so that its record names no artifact; its recipe does."""
    annealed, merges, *_ = old
    recorded(root, state="failed", started=LONG_AGO + timedelta(days=2))
    call("gc", "--store", root, "--keep-last", "1", "--delete")
    assert stands(root, annealed)
    assert stands(root, merges[0])
    assert not stands(root, merges[1])


@pytest.mark.parametrize("by_run", [True, False], ids=["by its recipe", "by what was made from it"])
def test_the_model_that_a_kept_recipe_starts_from_stays(root, old, by_run):
    _, merges, *_ = old
    model = merges[0].ref.uri
    if by_run:
        recorded(root, state="completed", started=LONG_AGO + timedelta(days=2), overrides=(f"model.path={model}",))
    else:
        start = OUTSIDE.model_copy(update={"uri": model})
        later = made(root, "merge", {"base": start, "anneal": start}, "merge.dtype=fp32")
        recorded(root, later, started=LONG_AGO + timedelta(days=2))
    call("gc", "--store", root, "--keep-last", "1", "--delete")
    assert stands(root, merges[0])
    assert not stands(root, merges[1])


def test_a_run_that_begins_while_rubbish_is_looked_for_loses_nothing(root, old, monkeypatch, capsys):
    _, merges, *_ = old

    def find(*arguments, **options):
        rubbish = find_rubbish(*arguments, **options)
        recorded(root, merges[0], state="running", started=NOW)
        return rubbish

    monkeypatch.setattr("flows.collect.find_rubbish", find)
    call("gc", "--store", root, "--keep-last", "1", "--delete")
    assert stands(root, merges[0])
    assert "left: it is in use" in capsys.readouterr().out


def test_a_store_without_runs_is_left_alone(root):
    made(root, "merge", {"base": OUTSIDE, "anneal": OUTSIDE})
    with pytest.raises(StoreError, match="no run is recorded here"):
        call("gc", "--store", root, "--delete")


def test_a_record_that_can_not_be_read_stops_it(root, old):
    store = ArtifactStore(root)
    place = store.location / "runs" / f"{new_attempt()}.json"
    place.fs.pipe_file(place.path, b"{ cut")
    with pytest.raises(Exception, match="not JSON"):
        call("gc", "--store", root, "--delete")


def a_record(days: float, state: str = "completed", **more):
    at = (NOW - timedelta(days=days)).isoformat()
    record = new_record(new_attempt(), "f", "x", recipe().model_dump(mode="json"))
    return record.model_copy(update={"started": at, "renewed": at, "ended": at, "state": state} | more)


@pytest.mark.parametrize(
    ("keep_last", "older_than", "kept"),
    [
        (None, None, [0, 1, 2, 3, 4]),
        (3, None, [0, 1, 2, 4]),
        (0, None, [0, 4]),  # ended within a day; running
        (None, 30, [0, 1, 4]),
        (None, 0, [0, 4]),
        (3, 30, [0, 1, 2, 4]),
    ],
)
def test_which_runs_are_kept(keep_last, older_than, kept):
    runs = [a_record(0.5), a_record(20), a_record(40), a_record(60), a_record(80, "running", ended=None)]
    assert kept_runs(runs, keep_last, older_than, NOW) == [runs[one] for one in kept]


def test_an_early_artifact_is_hit_by_any_stage_of_its_kind(tmp_path):
    hit = hit_by([a_record(1, "failed")])
    store = ArtifactStore(tmp_path / "store")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "data").write_text("x")
    for key, part, expected in (("a", stage_part(recipe(), "merge"), True), ("b", {"merge": "another"}, False)):
        ref = store.commit("checkpoint", key * 64, tmp_path / "made", recipe=part, seconds=1)
        assert hit(store.manifest_of(ref)) == expected
    assert not hit_by([a_record(1, "completed")])(store.manifest_of(ref))


def test_a_measurement_is_hit_by_a_run_that_measures(root):
    """No recipe's own run has the stage; sweeps, evaluations and retrainings ask for it."""
    measured = made(root, "measure", {"model": OUTSIDE, "tokenize": OUTSIDE})
    manifest = ArtifactStore(root).manifest_of(measured.ref)
    assert hit_by([a_record(1, "failed", flow="merge-sweep")])(manifest)


def test_runs_are_listed_newest_first(root, old, capsys):
    annealed, merges, _first, second = old
    resume = "longrecipe run x.yaml"
    failed = recorded(root, annealed, state="failed", started=NOW, error="LaunchError: no", resume=resume)
    recorded(root, state="running", started=LONG_AGO - timedelta(days=1), resume="a command")
    call("runs", "--store", root)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["started", "(UTC)", "flow", "recipe", "state", "hit", "ran", "model"]
    assert [line.split()[4] for line in lines if line.startswith("20")] == ["failed", *["completed"] * 2, "crashed"]
    assert lines[1:3] == ["    LaunchError: no", f"    to resume: {resume}"]
    assert lines[-1] == "    to resume: a command"
    assert lines[3].split()[5:] == ["0", "1", merges[1].ref.uri]
    call("runs", "--store", root, "--json", "--last", "2")
    assert [run["id"] for run in json.loads(capsys.readouterr().out)] == [failed.id, second.id]


def test_an_empty_store_has_no_runs(root, capsys):
    assert call("runs", "--store", root) == 0
    assert capsys.readouterr().out.startswith("no run is recorded in ")


@pytest.mark.parametrize("above", [False, True])
def test_show_tells_what_it_is_and_what_it_was_made_from(root, old, capsys, above):
    annealed, merges, *_ = old
    uri = merges[0].ref.uri
    assert call("show", uri.rsplit("/", 1)[0] if above else uri) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "checkpoint of stage merge"
    assert f"uri          {uri}" in told
    assert "    base_weight: 0.5" in told
    assert "  losses: 20 values" in told
    start = told.index("made from")
    assert told[start + 1 :] == [
        f"  outside {'0' * 16} some/model (outside)",
        f"  checkpoint of anneal {annealed.ref.fingerprint[:16]} {annealed.ref.uri}",
        *[f"    outside {'0' * 16} some/model (outside)"] * 2,
    ]


def test_show_tells_that_it_was_adopted(tmp_path, capsys):
    store = ArtifactStore(tmp_path / "store")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "data").write_text("x")
    origin = Adopted(uri="/models/mine", content_sha256="1" * 64)
    ref = store.commit("checkpoint", "2" * 64, tmp_path / "made", recipe={}, seconds=1, adopted=origin)
    call("show", ref.uri)
    assert "adopted      from /models/mine" in capsys.readouterr().out


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (15_300_000_000, "15.3 GB")])
def test_sizes_as_people_read_them(size, text):
    assert human(size) == text
