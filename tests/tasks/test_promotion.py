"""What becomes of a new model: promoted, kept, or looked at again because another run was faster."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, fingerprint
from longrecipe_core.artifacts.pointers import read_pointer
from longrecipe_core.recipe import Recipe
from tasks import promotion
from tasks.outside import look_outside
from tasks.promotion import Candidate, Measured, nothing_new, present_model, promote, same_tokenizer
from tasks.run import Run
from tasks.stages import stage_keys

TRAINING = {"learning_rate": 1e-3, "steps": 1}
WINDOW = 32


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    """A recipe whose sources are there, and a store."""
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "1.txt").write_text("one")
    recipe = {
        "name": "nightly",
        "base": {"training": TRAINING, "window": WINDOW},
        "context": {"target_length": 128, "train_length": 40},
        "corpus": {"sources": [{"path": str(tmp_path / "documents")}]},
        "extend": TRAINING,
        "replay": {"sources": [{"path": str(tmp_path / "documents")}]},
        "anneal": TRAINING,
        "promotion": {"short": 0.1, "long": 0.2},
    }
    return Run(recipe=Recipe.parse(yaml.safe_dump(recipe), ["launch.micro_batch=1"]), store=str(tmp_path / "store"))


@pytest.fixture
def events(monkeypatch):
    """What is emitted; a real server gets them in tests/flows."""
    told = []
    monkeypatch.setattr(promotion, "emit_event", lambda **event: told.append(event))
    return told


def put(run: Run, kind: str, name: str, files: dict[str, bytes], **metrics) -> ArtifactRef:
    directory = Path(run.store).parent / "staging"
    shutil.rmtree(directory, ignore_errors=True)
    for file, data in files.items():
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_bytes(data)
    return run.open_store().commit(kind, fingerprint(name), directory, recipe={}, seconds=0, metrics=metrics)


def evaluation(run: Run, name: str, model: str, short: float, long: float) -> ArtifactRef:
    values = {0: short, WINDOW: long}
    rows = [
        {"model": model, "measure": "nll", "start": start, "end": start + WINDOW, "value": value, "count": 10}
        for start, value in values.items()
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return put(run, "evaluation", name, {"evaluation.parquet": sink.getvalue().to_pybytes()}, window=WINDOW)


def candidate(run: Run, name: str, short: float, long: float, keys: dict[str, str] | None = None) -> Candidate:
    return Candidate(
        model=put(run, "checkpoint", f"model {name}", {"config.json": name.encode()}),
        tokens=put(run, "tokens", f"tokens {name}", {"a": b"a"}),
        evaluation=evaluation(run, f"evaluation {name}", "stage 2, merged", short, long),
        report=put(run, "report", f"report {name}", {"report.html": name.encode()}),
        fingerprints=keys or {"merge": fingerprint(f"model {name}")},
    )


def measured(run: Run, short: float, long: float, scale: float = 1.0) -> Measured:
    name = f"measured {short} {long}"
    return Measured(evaluation=evaluation(run, name, "model", short, long), nll_scale=scale)


def test_the_first_model_is_promoted_and_the_pointer_says_all(run, events):
    first = candidate(run, "first", 3.0, 4.0)
    decision = promote.fn(run, first, None, None)
    assert (decision.outcome, decision.new.short, decision.new.long) == ("promoted", 3.0, 4.0)
    pointer = read_pointer(run.open_store(), "nightly")
    assert pointer.model == first.model.uri
    assert pointer.refs == (first.model.uri, first.evaluation.uri, first.report.uri)
    assert (pointer.fingerprints, pointer.run, pointer.previous) == (first.fingerprints, run.id, None)
    assert present_model(run, pointer) == first.model
    (event,) = events
    assert event["event"] == "longrecipe.model.promoted"
    assert event["resource"]["prefect.resource.id"] == "longrecipe.model.nightly"
    assert event["payload"]["model"] == first.model.uri


@pytest.mark.parametrize(
    ("short", "long", "outcome"),
    [(2.0, 2.0, "promoted"), (3.09, 4.19, "promoted"), (3.11, 2.0, "kept"), (2.0, 4.21, "kept")],
)
def test_a_worse_model_is_kept_beside_the_present_one(run, events, short, long, outcome):
    first = candidate(run, "first", 9.0, 9.0)  # what it was measured at then is of no account
    promote.fn(run, first, None, None)
    present = read_pointer(run.open_store(), "nightly")
    second = candidate(run, "second", short, long)
    decision = promote.fn(run, second, present, measured(run, 3.0, 4.0))
    assert decision.outcome == outcome
    assert [event["event"] for event in events] == ["longrecipe.model.promoted", f"longrecipe.model.{outcome}"]
    pointer = read_pointer(run.open_store(), "nightly")
    if outcome == "promoted":
        assert (pointer.model, pointer.previous, pointer.refused) == (second.model.uri, first.model.uri, None)
    else:
        assert (pointer.model, pointer.refused.model) == (first.model.uri, second.model.uri)
        assert events[1]["payload"]["reasons"] == list(pointer.refused.reasons) != []


def test_losses_are_compared_in_the_new_tokenizer_s_units(run, events):
    promote.fn(run, candidate(run, "first", 3.0, 4.0), None, None)
    present = read_pointer(run.open_store(), "nightly")
    # Twice as many tokens for the same text: 3 nats each are 6 per token of the new one.
    decision = promote.fn(run, candidate(run, "second", 6.05, 8.0), present, measured(run, 3.0, 4.0, scale=2.0))
    assert (decision.outcome, decision.present.short, decision.present.long) == ("promoted", 6.0, 8.0)


def test_who_compared_with_a_pointer_that_has_moved_compares_again(run, events):
    promote.fn(run, candidate(run, "first", 3.0, 4.0), None, None)
    seen = read_pointer(run.open_store(), "nightly")
    faster, slower = candidate(run, "faster", 2.0, 3.0), candidate(run, "slower", 2.5, 3.5)
    assert promote.fn(run, faster, seen, measured(run, 3.0, 4.0)).outcome == "promoted"
    assert promote.fn(run, slower, seen, measured(run, 3.0, 4.0)) is None
    assert promote.fn(run, slower, None, None) is None  # nor as the first one ever
    assert read_pointer(run.open_store(), "nightly").model == faster.model.uri
    assert len(events) == 2


def test_a_model_that_is_promoted_already_is_no_news(run, events):
    first = candidate(run, "first", 3.0, 4.0)
    promote.fn(run, first, None, None)
    again = first.model_copy(update={"fingerprints": {"merge": "other"}})
    assert promote.fn(run, again, read_pointer(run.open_store(), "nightly"), None).outcome == "same"
    pointer = read_pointer(run.open_store(), "nightly")
    assert (pointer.model, pointer.fingerprints, pointer.previous) == (first.model.uri, again.fingerprints, None)
    assert len(events) == 1


def keys_now(run: Run) -> dict[str, str]:
    return stage_keys(run.recipe, look_outside(run.recipe, run.open_store()))


def changed(run: Run, *overrides: str) -> Run:
    return run.model_copy(update={"recipe": Recipe.parse(run.recipe.to_yaml(), overrides)})


def test_nothing_is_new_until_data_or_recipe_change(run, events, tmp_path):
    assert nothing_new(run) is None
    promote.fn(run, candidate(run, "first", 3.0, 4.0, keys_now(run)), None, None)
    assert "was promoted" in nothing_new(run)
    assert "was promoted" in nothing_new(changed(run, "launch.threads=2", "promotion.short=7"))
    assert nothing_new(changed(run, "merge.base_weight=0.4")) is None
    assert nothing_new(run.model_copy(update={"force": ("merge",)})) is None
    (tmp_path / "documents" / "2.txt").write_text("two")
    assert nothing_new(run) is None
    (tmp_path / "documents" / "2.txt").unlink()
    assert "was promoted" in nothing_new(run)  # the key is content


def test_a_refused_model_is_looked_at_again_with_other_tolerances_only(run, events, tmp_path):
    promote.fn(run, candidate(run, "first", 3.0, 4.0), None, None)
    present = read_pointer(run.open_store(), "nightly")
    assert promote.fn(run, candidate(run, "bad", 9.0, 9.0, keys_now(run)), present, measured(run, 3.0, 4.0))
    assert "was not promoted" in nothing_new(run)
    assert nothing_new(changed(run, "promotion.short=7")) is None


def test_a_present_model_that_is_gone_or_damaged_is_no_reason_to_do_nothing(run, events):
    first = candidate(run, "first", 3.0, 4.0, keys_now(run))
    promote.fn(run, first, None, None)
    pointer = read_pointer(run.open_store(), "nightly")
    Path(first.model.uri, "config.json").write_text("broken")
    assert present_model(run, pointer) is None
    for artifact in (first.report, first.model):
        (Path(artifact.uri).parent / "manifest.json").rename(Path(artifact.uri).parent / "manifest.away")
        assert nothing_new(run) is None
    assert present_model(run, pointer) is None


def test_tokenizers_are_told_apart_by_their_files(run):
    def checkpoint(name: str, tokenizer: bytes) -> ArtifactRef:
        files = {"tokenizer.json": tokenizer, "config.json": name.encode(), "about/tokenizer.json": name.encode()}
        return put(run, "checkpoint", name, files)

    store: ArtifactStore = run.open_store()
    one, two, other = checkpoint("one", b"a"), checkpoint("two", b"a"), checkpoint("other", b"b")
    assert same_tokenizer(store, one, two)
    assert not same_tokenizer(store, one, other)
