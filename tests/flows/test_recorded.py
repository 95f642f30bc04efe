"""A run's record in the store: how it goes, how it ended, and the command that resumes it."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from prefect.exceptions import TerminationSignal
from smallest_recipe import RECIPE

from flows.recorded import recorded
from flows.resume import command_line
from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, RunRecords, fingerprint
from longrecipe_core.errors import LaunchError
from longrecipe_core.recipe import Recipe
from tasks.run import Run, StageOutcome


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    return f"memory://{tmp_path.name}" if request.param == "memory" else str(tmp_path / "store")


def a_run(root: str, **more) -> Run:
    return Run(recipe=Recipe.parse(yaml.safe_dump(RECIPE)), store=root, **more)


def outcome(stage: str) -> StageOutcome:
    ref = ArtifactRef(uri=f"there/{stage}", kind="checkpoint", fingerprint=fingerprint(stage))
    return StageOutcome(stage=stage, ref=ref, status="ran", why="because", seconds=1.5)


def test_a_record_follows_the_run(root):
    run = a_run(root)
    records = RunRecords(ArtifactStore(root))
    with recorded(run, "extend-context") as summary:
        [begun] = records.newest_first()
        assert (begun.id, begun.state, begun.state_now(), begun.stages) == (run.id, "running", "running", ())
        assert begun.resume is not None  # for one that is killed
        summary.add(outcome("merge"))
        [on_the_way] = records.newest_first()
        assert on_the_way.uri("merge") == "there/merge"
    [ended] = records.newest_first()
    assert ended.state == ended.state_now() == "completed"
    assert ended.ended is not None
    assert ended.resume is None
    assert ended.ended >= ended.started
    assert Recipe.model_validate(ended.recipe) == run.recipe
    assert Recipe.load(records.recipe_place(run.id).uri) == run.recipe


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (LaunchError("out\nof luck"), "failed"),
        (ValueError("unforeseen"), "failed"),
        (KeyboardInterrupt(), "cancelled"),
        (TerminationSignal(signal=15), "cancelled"),
        (SystemExit(3), "crashed"),
    ],
)
def test_a_bad_end_is_recorded_and_told_with_what_resumes_it(tmp_path, error, state):
    run = a_run(str(tmp_path / "a store"), force=("extend",), adopt={"anneal": "s3://bucket/it's"})

    def fail():
        with recorded(run, "extend-context") as summary:
            summary.add(outcome("extend"))
            raise error

    with pytest.raises(type(error)) as raised:
        fail()
    [record] = RunRecords(run.open_store()).newest_first()
    assert record.state == state
    assert record.uri("extend") == "there/extend"
    assert record.error is not None
    assert "\n" not in record.error
    assert raised.value.__notes__ == [f"to resume: {record.resume}"]
    # The recipe came as an object, so the command reads the one in the store; a shell splits it as it was meant.
    [program, *words] = shlex.split(record.resume)
    assert Path(program).name == "longrecipe"
    assert Recipe.load(words[1]) == run.recipe
    assert words[2:] == [
        *("--store", str(tmp_path / "a store")),
        *("--force", "extend", "--adopt", "anneal=s3://bucket/it's"),
    ]


def test_a_recipe_of_a_file_is_named_with_its_overrides(tmp_path):
    run = a_run(str(tmp_path), start_from="extend")
    given = {"recipe": "recipes/x y.yaml", "overrides": ["seed=1", "merge={base_weight: 0.3}"], "seed": None}
    words = command_line(run, given)[1:]
    expected = ["run", "recipes/x y.yaml", "--set", "seed=1", "--set", "merge={base_weight: 0.3}"]
    assert words == [*expected, "--store", str(tmp_path), "--start-from", "extend"]
    # A group changes the file's recipe: only the resolved one is this run's.
    assert command_line(run, given | {"seed": 2})[2] == str(tmp_path / "runs" / f"{run.id}.yaml")


def test_only_the_whole_recipe_has_a_command(tmp_path):
    run = a_run(str(tmp_path))
    with pytest.raises(LaunchError) as raised, recorded(run, "train-stage"):
        raise LaunchError("no")
    assert not hasattr(raised.value, "__notes__")


def test_what_can_not_be_recorded_fails_no_run(tmp_path, caplog):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "runs").write_text("a file where the directory should be")
    with recorded(a_run(str(tmp_path / "store")), "extend-context") as summary:
        summary.add(outcome("merge"))
    assert "could not be written" in caplog.text


def test_force_is_one_request_until_it_is_completed(root):
    def request(force=("extend",), flow="extend-context", error=None):
        run = a_run(root, force=force)
        try:
            with recorded(run, flow):
                if error:
                    raise error
        except LaunchError:
            pass
        return run.id, RunRecords(ArtifactStore(root)).find(run.id).request

    first, of_first = request(error=LaunchError("killed"))
    assert of_first == first
    other, of_other = request(force=("anneal",))
    assert of_other == other
    assert request(error=LaunchError("again"))[1] == first
    assert request()[1] == first  # completes it
    last, of_last = request()
    assert of_last == last


def test_a_record_whose_process_is_gone_is_of_a_crashed_run(tmp_path):
    run = a_run(str(tmp_path))
    records = RunRecords(run.open_store())
    with recorded(run, "extend-context"):
        path = tmp_path / "runs" / f"{run.id}.json"
        written = json.loads(path.read_text())
    here = records.find(run.id).model_copy(update={"state": "running"})
    assert here.state_now() == "running"
    assert here.model_copy(update={"process_started": "another"}).state_now() == "crashed"
    elsewhere = here.model_copy(update={"host": "other machine"})
    assert elsewhere.state_now() == "running"
    assert elsewhere.model_copy(update={"renewed": "2020-01-01T00:00:00+00:00"}).state_now() == "crashed"
    assert written["state"] == "running"
