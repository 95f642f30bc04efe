"""Ray for real: a cluster of two nodes, real stages, killed workers; and a cluster that a run starts for itself."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray_shards
import yaml
from polling import PATIENCE, wait_until
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import TaskRunSort
from prefect_harness import prefect_harness
from prefect_home import make_home
from ray_cluster import two_nodes
from smallest_recipe import RECIPE

from longrecipe_core.artifacts import ArtifactStore, Lease, fingerprint
from longrecipe_core.corpus import load_tokenizer, train_tokenizer
from longrecipe_core.errors import CorpusError, FanOutError, RecipeError
from longrecipe_core.fan_out import AsNeeded, Here, Processes
from longrecipe_core.modeling import make_tiny_config, make_tiny_model
from longrecipe_core.recipe import BaseSection, Recipe, TrainingSection
from tasks.corpus import tokenize
from tasks.fan_out import Ray, engine
from tasks.index import index
from tasks.outside import look_outside
from tasks.run import Run, Work
from tasks.stages import STAGES

DOCUMENTS, PER_SHARD = 40, 5


@pytest.fixture(scope="module")
def stage_notes(tmp_path_factory):
    """Where the stages' shards, told by the environment, leave a file each."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def address(stage_notes):
    """Two nodes, and a Prefect server that their workers report to."""
    with prefect_harness(), two_nodes(RAY_TEST_NOTES=str(stage_notes)) as gcs:
        yield gcs


@pytest.fixture
def make_work(tmp_path, monkeypatch):
    """A stage in the making, one of whose inputs is an artifact with a number."""
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("LONGRECIPE_ENGINE", raising=False)
    store = ArtifactStore(str(tmp_path / "store"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "offset.txt").write_text("1000")
    tokens = store.commit("tokens", fingerprint("tokens"), tmp_path / "data", recipe={}, seconds=0.0)
    key = fingerprint("index")
    with Lease(store, key) as lease:

        def work(lines, **launch):
            recipe = Recipe.parse(yaml.safe_dump(RECIPE | {"launch": launch}))
            run = Run(recipe=recipe, store=store.root)
            return Work(run, store, STAGES["index"], key, {"tokenize": tokens}, tmp_path / "o", lines.append, lease)

        yield work


def each(work, function, count, notes):
    notes.mkdir()
    jobs = ((number, str(notes)) for number in range(count))
    return engine(work).each(function, jobs, {"tokenize": work.fetch("tokenize")})


def test_the_engine_is_what_recipe_or_environment_say(make_work, monkeypatch):
    assert isinstance(engine(make_work([])), AsNeeded)
    assert isinstance(engine(make_work([], workers=1)), Here)
    assert isinstance(engine(make_work([], workers=2)), Processes)
    assert isinstance(engine(make_work([], engine="ray")), Ray)
    monkeypatch.setenv("LONGRECIPE_ENGINE", "ray")
    assert isinstance(engine(make_work([])), Ray)
    assert isinstance(engine(make_work([], engine="processes")), AsNeeded)
    monkeypatch.setenv("LONGRECIPE_ENGINE", "dask")
    with pytest.raises(
        RecipeError, match=r"LONGRECIPE_ENGINE=dask in the environment: no such engine; allowed: processes, ray"
    ):
        engine(make_work([]))


def test_inputs_that_are_no_artifacts_stay_on_this_machine(make_work, tmp_path):
    """As the tokenizer that stage `base` has just trained."""
    lines = []
    work = make_work(lines, engine="ray", ray_address="127.0.0.1:1")
    (tmp_path / "scratch").mkdir()
    jobs = [(4, str(tmp_path))]
    for inputs in ({"base": tmp_path / "scratch"}, {"tokenize": tmp_path / "scratch"}):
        assert list(engine(work).each(ray_shards.fails, jobs, inputs)) == [4]
    assert lines == 2 * ["index: its inputs are on this machine only, and so are its workers"]


def test_an_address_where_nobody_listens_is_told_at_once(make_work, tmp_path):
    work = make_work([], engine="ray", ray_address="127.0.0.1:1")
    with pytest.raises(FanOutError, match=r"no Ray cluster at 127.0.0.1:1: .*launch.ray_address"):
        list(each(work, ray_shards.square, 1, tmp_path / "notes"))


@flow
def one_stage():
    """Prefect sends the flow to the workers: what it holds must lie in a module that they can import."""
    return ray_shards.stage()


def test_shards_are_prefect_tasks_on_both_nodes(address, make_work, tmp_path, monkeypatch):
    lines = []
    work = make_work(lines, engine="ray", ray_address=address)
    monkeypatch.setattr(
        ray_shards, "stage", lambda: list(each(work, ray_shards.square_on_both_nodes, 8, tmp_path / "notes"))
    )
    before = signal.getsignal(signal.SIGTERM)
    results = one_stage()
    assert signal.getsignal(signal.SIGTERM) is before
    assert [number for number, _, _ in results] == [1000 + number * number for number in range(8)]
    assert len({node for _, node, _ in results}) == 2
    assert ray_shards.notes(tmp_path / "notes") == list(range(8))
    for _, _, environment in results:
        assert environment == {
            "OMP_NUM_THREADS": "1",
            "RAYON_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
    shown = {f"index · shard {number}" for number in range(8)}
    with get_client(sync_client=True) as client:

        def told():
            return {run.name for run in client.read_task_runs(limit=200, sort=TaskRunSort.ID_DESC)}

        wait_until(lambda: told() >= shown, lambda: f"for {shown}: {told()}")  # noted as their events arrive
    assert lines == ["index: shards on Ray, 2 at a time"]


def test_a_killed_ray_worker_costs_its_shard_only(address, make_work, tmp_path):
    lines = []
    work = make_work(lines, engine="ray", ray_address=address)
    results = list(each(work, ray_shards.killed_once, 8, tmp_path / "notes"))
    assert results == [1000 + number * number for number in range(8)]
    assert ray_shards.notes(tmp_path / "notes", "begun") == sorted([*range(8), 3])
    assert ray_shards.notes(tmp_path / "notes") == list(range(8))
    assert lines[1:] == ["shard 3: its Ray worker died (WorkerCrashedError); attempt 1 of 3"]


def test_a_shard_that_kills_its_ray_worker_three_times_ends_the_stage(address, make_work, tmp_path):
    work = make_work([], engine="ray", ray_address=address)
    with pytest.raises(FanOutError, match=r"shard 1: its Ray worker died .*, 3 times in a row"):
        list(each(work, ray_shards.killed_always, 4, tmp_path / "notes"))
    assert ray_shards.notes(tmp_path / "notes", "begun").count(1) == 3


def test_an_error_on_ray_keeps_its_class_and_message(address, make_work, tmp_path):
    work, got = make_work([], engine="ray", ray_address=address), []
    with pytest.raises(CorpusError) as caught:
        got.extend(each(work, ray_shards.fails, 5, tmp_path / "notes"))
    assert type(caught.value) is CorpusError
    assert str(caught.value) == "shard 2: row 17 is no text"
    assert got == [0, 1]


@flow
def make_tokens_and_index(run):
    outside = look_outside(run.recipe, run.open_store())
    tokens = tokenize(run, outside["base"], outside["corpus"])
    return [tokens, index(run, outside["base"], tokens.ref)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Documents of random sentences, and a model whose tokenizer knows them."""
    root = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    texts = [
        "\n".join(f"Line {rng.integers(100)} has word{rng.integers(30)} in it." for _ in range(60))
        for _ in range(DOCUMENTS)
    ]
    (root / "documents").mkdir()
    for number, text in enumerate(texts):
        (root / "documents" / f"{number:02}.txt").write_text(text)
    (root / "replay.jsonl").write_text('{"prompt": "one", "response": "two"}\n')
    train_tokenizer(texts, 300, root / "tokenizer", model_max_length=32)
    tokenizer = load_tokenizer(root / "tokenizer")
    section = BaseSection(
        hidden_size=16, intermediate_size=24, layers=1, query_heads=2, kv_heads=1, window=32,
        training=TrainingSection(learning_rate=1e-3),
    )  # fmt: skip
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = make_tiny_config(section, len(tokenizer), **ids)
    make_tiny_model(config, root / "tokenizer", root / "model", seed=0)
    return RECIPE | {
        "model": {"path": str(root / "model")},
        "corpus": {"sources": [{"path": str(root / "documents"), "format": "text"}], "validation_share": 0.3},
        "replay": {"sources": [{"path": str(root / "replay.jsonl"), "format": "jsonl"}]},
        "index": {"samples": DOCUMENTS},
        "evaluation": {"documents": 4, "buckets": 4},
    }


def test_stages_give_the_same_bytes_here_in_processes_and_on_ray(address, recipe, stage_notes, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("longrecipe_core.corpus.encoding._DOCUMENTS_PER_BATCH", PER_SHARD)
    monkeypatch.setattr("longrecipe_core.positions.index.SAMPLES_PER_BATCH", PER_SHARD)
    made = {}

    def make(name, launch):
        run = Run(recipe=Recipe.parse(yaml.safe_dump(recipe | {"launch": launch})), store=str(tmp_path / name))
        outcomes = make_tokens_and_index(run)
        assert [outcome.status for outcome in outcomes] == ["ran", "ran"]
        made[name] = [run.open_store().manifest_of(outcome.ref) for outcome in outcomes]

    make("here", {"workers": 1})
    make("processes", {"workers": 4})
    monkeypatch.setattr("longrecipe_core.corpus.encoding.encode_job", ray_shards.noted_encoding)
    monkeypatch.setattr("longrecipe_core.positions.index.draw_job", ray_shards.noted_drawing)
    (stage_notes / "kill").touch()
    make("ray", {"engine": "ray", "ray_address": address})

    for stage in range(2):
        digests = [
            {entry.name: entry.sha256 for entry in made[name][stage].files if not entry.name.startswith("about/")}
            for name in ("here", "processes", "ray")
        ]
        assert digests[0], "no data files"
        assert digests[1] == digests[0]
        assert digests[2] == digests[0]
        assert made["ray"][stage].metrics == made["processes"][stage].metrics == made["here"][stage].metrics
    begun, done = ([path.name.split("-")[1] for path in stage_notes.glob(f"{what}-*")] for what in ("begun", "done"))
    assert len(set(done)) == 2  # nodes
    assert len(done) == 2 * DOCUMENTS // PER_SHARD  # of two stages, each shard once
    assert len(begun) == len(done) + 1  # and the one whose worker was killed


OWN = """
import sys
sys.path.insert(0, sys.argv[1])
import ray_shards
from tasks.fan_out import engine
from longrecipe_core.artifacts import ArtifactStore, Lease, fingerprint
from longrecipe_core.recipe import Recipe
from tasks.run import Run, Work
from tasks.stages import STAGES

store, lines = ArtifactStore(sys.argv[2]), []
ref = store.ref(store.find("tokens", fingerprint("tokens")))
with Lease(store, fingerprint("own")) as lease:
    work = Work(
        Run(recipe=Recipe.parse(sys.argv[3]), store=store.root), store, STAGES["index"], fingerprint("own"),
        {"tokenize": ref}, None, lines.append, lease,
    )
    jobs = ((number, sys.argv[4]) for number in range(99))
    results = engine(work).each(ray_shards.square, jobs, {"tokenize": work.fetch("tokenize")})
    first = [next(results)[0] for _ in range(4)]
    results.close()
    print(first, lines)
"""


def test_a_run_without_an_address_starts_a_cluster_and_ends_it(make_work, tmp_path):
    """With a run's own Prefect server, too, which its workers must find; and left before its end."""
    make_work([])
    (tmp_path / "notes").mkdir()
    recipe = yaml.safe_dump(RECIPE | {"launch": {"engine": "ray", "workers": 2}})
    here = str(Path(__file__).parent)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_API", "RAY_"))},
        "PREFECT_HOME": str(make_home(tmp_path / "prefect")),
        "PYTHONPATH": here,
        "LONGRECIPE_JOB_OF_TEST": str(tmp_path),
    }
    # Short: sockets lie in it, whose paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as directory:
        done = subprocess.run(
            [sys.executable, "-c", OWN, here, str(tmp_path / "store"), recipe, str(tmp_path / "notes")],
            env=environment | {"RAY_TMPDIR": directory}, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[1000, 1001, 1004, 1009] ['index: shards on Ray, 2 at a time']"
    assert len(ray_shards.notes(tmp_path / "notes")) <= 4 + 2 * 2
    assert not [process for process in psutil.process_iter() if of_test(process, str(tmp_path))]


def of_test(process, token):
    try:
        return process.environ().get("LONGRECIPE_JOB_OF_TEST") == token and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
