"""`start_from` and `force` around a stage's work, and what is told of a stage that runs."""

import shutil
from pathlib import Path

import pytest
import smallest_recipe
import yaml

from longrecipe_core.artifacts import (
    ArtifactRef,
    ArtifactStore,
    Lease,
    RunRecords,
    TrainingState,
    fingerprint,
    new_record,
)
from longrecipe_core.errors import LaunchError, RecipeError, StartFromError
from longrecipe_core.recipe import Recipe, stage_part
from tasks.decide import check_choices
from tasks.force import first_request
from tasks.run import Run, settle
from tasks.stages import STAGES, Stage, stage_key

RECIPE = smallest_recipe.RECIPE | {"extend": {"learning_rate": 5e-5, "steps": 8}}


def reference(name: str, kind: str = "outside") -> ArtifactRef:
    return ArtifactRef(uri=f"outside/{name}", kind=kind, fingerprint=fingerprint(name))


INPUTS = {name: reference(name) for name in ("base", "tokenize", "index")}


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    return f"memory://{tmp_path.name}/choices" if request.param == "memory" else str(tmp_path / "store")


def a_run(root: str, *overrides: str, **choices) -> Run:
    return Run(recipe=Recipe.parse(yaml.safe_dump(RECIPE), overrides), store=root, **choices)


def make(text: str, calls: list[str] | None = None):
    def work(work):
        if calls is not None:
            calls.append(text)
        (work.output / "data.txt").write_text(text)
        return {}

    return work


def whole(outcome) -> str:
    store = ArtifactStore.containing(outcome.ref.uri)
    return (store.fetch(outcome.ref) / "data.txt").read_text()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"start_from": "extnd"}, "start_from: this recipe has no stage extnd; allowed: tokenize, index, extend"),
        ({"force": ("score",)}, "force: this recipe has no stage score; allowed: tokenize"),
        ({"adopt": {"index": "x"}}, "adopt: index is no stage .* allowed: extend, anneal, merge$"),
        ({"adopt": {"base": "x"}}, "adopt: base is no stage"),
        ({"force": ("index",), "start_from": "extend"}, "force: index is before start_from extend"),
        ({"force": ("extend",), "adopt": {"extend": "x"}}, "adopt: extend is in force too"),
    ],
)
def test_choices_that_the_recipe_has_not_are_one_line_each(choices, message):
    with pytest.raises(RecipeError, match=message) as raised:
        check_choices(a_run("nowhere", **choices))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "choices", "place"),
    [
        ([], {"adopt": {"extend": "s3://key:hunter2@bucket/x"}}, "adopt.extend: s3://bucket/x"),
        (["model.path=s3://key:hunter2@bucket/x"], {}, "model.path: s3://bucket/x"),
        (["corpus.sources.0.path=https://h/x?sig=hunter2"], {}, "corpus.sources.0.path: https://h/x"),
    ],
)
def test_a_secret_in_a_url_is_refused_before_it_is_recorded_and_not_told(overrides, choices, place):
    with pytest.raises(RecipeError, match="environment") as raised:
        check_choices(a_run("nowhere", *overrides, **choices))
    assert str(raised.value).startswith(f"{place}: credentials")
    assert "hunter2" not in str(raised.value)


def test_a_model_that_lies_in_the_same_store_is_no_other_one_each_time(root):
    """An artifact of an earlier recipe as the model that this one starts from."""
    base = INPUTS["base"].model_copy(update={"uri": f"{ArtifactStore(root).root}/checkpoint/{'1' * 16}/model"})
    first = settle(a_run(root), "extend", INPUTS | {"base": base}, make("first"))
    assert settle(a_run(root), "extend", INPUTS | {"base": base}, make("again")).ref == first.ref


def test_choices_that_it_has_are_taken():
    check_choices(a_run("nowhere", start_from="extend", force=("extend", "report"), adopt={"anneal": "x"}))


def test_a_stage_before_the_start_is_taken_from_the_store_or_refused(root):
    start = {"start_from": "extend"}
    inputs = {name: INPUTS[name] for name in ("base", "tokenize")}
    with pytest.raises(
        StartFromError, match=r"index: comes before start_from extend .*there is no such artifact"
    ) as told:
        settle(a_run(root, **start), "index", inputs, make("index"))
    assert "start from index" in str(told.value)
    assert settle(a_run(root), "index", inputs, make("index")).status == "ran"
    assert settle(a_run(root, **start), "index", inputs, make("index")).status == "hit"
    assert settle(a_run(root, **start), "extend", INPUTS, make("extend")).status == "ran"


def test_a_forced_stage_is_made_again_and_nothing_is_deleted(root):
    first = settle(a_run(root), "extend", INPUTS, make("first"))
    forced = a_run(root, force=("extend",))
    second = settle(forced, "extend", INPUTS, make("second"))
    assert (second.status, second.why) == ("ran", "forced")
    assert whole(second) == "second"
    place = forced.open_store().location / "checkpoint" / first.ref.fingerprint[:16]
    aside = [name for name in place.children() if name.startswith("manifest.replaced-")]
    assert len(aside) == 2  # the manifest and the reason
    assert Path(first.ref.uri).name in place.children()
    # A retry inside the same run, and any later run that forces nothing, take it.
    assert settle(forced, "extend", INPUTS, make("third")).status == "hit"
    assert settle(a_run(root), "extend", INPUTS, make("third")).status == "hit"
    # Another command that forces is another request.
    assert settle(a_run(root, force=("extend",)), "extend", INPUTS, make("third")).status == "ran"


def test_a_forced_stage_only_is_made_again(root):
    inputs = {name: INPUTS[name] for name in ("base", "tokenize")}
    settle(a_run(root), "index", inputs, make("index"))
    assert settle(a_run(root, force=("extend",)), "index", inputs, make("again")).status == "hit"


def record(run: Run, state: str) -> None:
    records = RunRecords(run.open_store())
    request = first_request(run, "extend-context", run.open_store())
    records.write(
        new_record(
            run.id,
            "extend-context",
            "x",
            run.recipe.model_dump(mode="json"),
            force=run.force,
            request=request,
            state=state,
        )
    )


class Killed(BaseException):
    """As far as the store can see, a kill -9: nothing after the last checkpoint is done."""


def training(steps: list[int], *, killed: bool):
    """A training that goes on from the newest state, saves two steps more, and ends well or is killed."""

    def work(work):
        state = TrainingState(work.store, work.key, work.lease)
        begin = state.latest() or 0
        steps.append(begin)
        for step in (begin + 1, begin + 2):
            saved = work.output.parent / "saved"
            shutil.rmtree(saved, ignore_errors=True)
            saved.mkdir()
            (saved / "weights").write_text(str(step))
            state.save(step, saved)
        if killed:
            raise Killed
        (work.output / "data.txt").write_text(f"trained to {begin + 2}")
        return {}

    return work


def test_a_forced_training_starts_anew_once_and_then_goes_on(root):
    """States of an unforced training are dropped; what the forced one made meanwhile stays, however often it ends."""
    begun: list[int] = []
    with pytest.raises(Killed):
        settle(a_run(root), "extend", INPUTS, training(begun, killed=True))
    first = a_run(root, force=("extend",))
    record(first, "running")  # and its process is killed, so that it stays so
    with pytest.raises(Killed):
        settle(first, "extend", INPUTS, training(begun, killed=True))
    with pytest.raises(Killed):  # a retry inside the run
        settle(first, "extend", INPUTS, training(begun, killed=True))
    # The same command again; `launch` decides no result and may be another.
    second = a_run(root, "launch.threads=2", force=("extend",))
    record(second, "failed")
    made = settle(second, "extend", INPUTS, training(begun, killed=False))
    assert begun == [0, 0, 2, 4]
    assert (made.status, whole(made)) == ("ran", "trained to 6")
    state = TrainingState(first.open_store(), made.ref.fingerprint)
    assert (state.steps(), state.request()) == ([], None)
    # It failed in a later stage: what was made again already is not made a third time.
    third = a_run(root, force=("extend",))
    record(third, "completed")
    assert settle(third, "extend", INPUTS, training(begun, killed=False)).status == "hit"
    # Completed: the next command that forces means it.
    fourth = a_run(root, force=("extend",))
    record(fourth, "running")
    assert settle(fourth, "extend", INPUTS, training(begun, killed=False)).status == "ran"
    assert begun == [0, 0, 2, 4, 0]


def test_a_forced_training_that_was_killed_goes_on_without_force_too(root):
    begun: list[int] = []
    settle(a_run(root), "extend", INPUTS, training(begun, killed=False))
    forced = a_run(root, force=("extend",))
    record(forced, "running")
    with pytest.raises(Killed):
        settle(forced, "extend", INPUTS, training(begun, killed=True))
    assert settle(a_run(root), "extend", INPUTS, training(begun, killed=False)).status == "ran"
    assert begun == [0, 0, 2]
    # That was the forced one: the first command, given again, has what it asked for.
    again = a_run(root, force=("extend",))
    record(again, "running")
    assert settle(again, "extend", INPUTS, training(begun, killed=False)).status == "hit"


def test_work_on_this_machine_from_before_a_force_on_another_is_dropped(root, tmp_path):
    run = a_run(root)
    with pytest.raises(LaunchError):
        settle(run, "extend", INPUTS, fail_with_old_work)
    staging = run.open_store().staging / stage_key(run.recipe, STAGES["extend"], INPUTS)[:16]
    assert (staging / "checkpoints" / "step-7").exists()
    store, key = run.open_store(), stage_key(run.recipe, STAGES["extend"], INPUTS)
    with Lease(store, key) as lease:
        TrainingState(store, key, lease).note_request("a run on another machine")

    def look(work):
        assert not (work.output.parent / "checkpoints").exists()
        (work.output / "data.txt").write_text("made")
        return {}

    assert settle(a_run(root), "extend", INPUTS, look).status == "ran"


def fail_with_old_work(work):
    (work.output.parent / "checkpoints" / "step-7").mkdir(parents=True)
    raise LaunchError("out of luck")


def why(root, *overrides, inputs=INPUTS, **choices) -> str:
    return settle(a_run(root, *overrides, **choices), "extend", inputs, make("made")).why


def test_what_changed_is_told_by_the_recipes_own_keys(root):
    assert why(root) == "there is no such artifact"
    assert why(root, "extend.learning_rate=1e-5") == "extend.learning_rate 5e-5 → 1e-5"
    # The nearest earlier one counts, not the last.
    assert why(root, "extend.steps=9") == "extend.steps 8 → 9"
    # Of two equally near ones, the newer.
    both = "extend.learning_rate=1e-5", "extend.steps=9"
    assert why(root, *both, "seed=3") == "extend.learning_rate 5e-5 → 1e-5, seed 2027 → 3"
    assert why(root, inputs=INPUTS | {"index": reference("another")}) == "index changed: outside/another"
    inside = reference("third", kind="index")
    assert why(root, inputs=INPUTS | {"index": inside}) == "input index is another"
    assert why(root) == "in the store, whole"


def test_another_version_of_the_code_is_told(root, monkeypatch):
    why(root)
    old = STAGES["extend"]
    monkeypatch.setitem(STAGES, "extend", Stage(old.name, old.kind, old.inputs, version=old.version + 1))
    assert why(root) == f"version {old.version} → {old.version + 1} of the stage's code"


def test_another_stage_of_the_same_kind_is_no_neighbour(root):
    settle(a_run(root), "merge", {"base": reference("base"), "anneal": reference("anneal")}, make("merged"))
    assert why(root) == "there is no such artifact"


def test_an_early_manifest_is_recognised_by_its_keys(tmp_path, monkeypatch):
    """Those before this release tell neither stage nor version nor names of inputs."""
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    root = str(tmp_path / "store")
    run = a_run(root)
    store, key = run.open_store(), stage_key(run.recipe, STAGES["extend"], INPUTS)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "data.txt").write_text("made")
    part = stage_part(run.recipe, "extend")
    store.commit("checkpoint", key, tmp_path / "made", inputs=list(INPUTS.values()), recipe=part, seconds=1)
    assert why(root, "extend.steps=9") == "extend.steps 8 → 9"
    assert why(root, inputs=INPUTS | {"tokenize": reference("other")}) == "tokenize changed: outside/other"
