"""A recipe that runs in seconds, one Prefect API for the session, and a first run that tests copy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from prefect_harness import prefect_harness

from longrecipe_core.recipe import Recipe


@pytest.fixture(scope="session")
def prefect_api():
    """Prefect's own API on a database of its own."""
    with prefect_harness():
        yield


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory) -> Path:
    """Twenty documents of numbered sentences, a few samples of instruction data, a model of 30k parameters."""
    root = tmp_path_factory.mktemp("recipe")
    rng = np.random.default_rng(0)
    (root / "documents").mkdir()
    for number in range(20):
        sentences = [f"Line {rng.integers(100)} has word{rng.integers(30)} in it." for _ in range(60)]
        (root / "documents" / f"{number:02}.txt").write_text("\n".join(sentences))
    rows = [{"q": f"What is {n} plus 1?", "a": f"It is {n + 1}."} for n in range(80)]
    (root / "replay.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"learning_rate": 3e-3, "steps": 4, "global_batch": 4, "precision": "fp32"}
    recipe = {
        "name": "seconds",
        "base": {
            "vocabulary_size": 300,
            "hidden_size": 16,
            "intermediate_size": 24,
            "layers": 1,
            "query_heads": 2,
            "kv_heads": 1,
            "window": 32,
            "training": training,
        },
        "context": {"target_length": 128, "train_length": 40},
        "corpus": {
            "sources": [{"path": str(root / "documents"), "format": "text"}],
            "validation_share": 0.3,
        },
        "extend": training,
        "replay": {
            "sources": [
                {
                    "path": str(root / "replay.jsonl"),
                    "format": "jsonl",
                    "prompt_column": "q",
                    "response_column": "a",
                }
            ]
        },
        "anneal": training | {"schedule": "linear"},
        "evaluation": {"documents": 4, "buckets": 4, "precision": "fp32"},
        "launch": {"threads": 1, "checkpoint_every": 2},
    }
    path = root / "seconds.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="session")
def first_run(prefect_api, recipe_file, tmp_path_factory):
    """A store with every stage, and what the run gave back."""
    from flows.extend_context import extend_context
    from flows.parameters import parameters_of

    store = tmp_path_factory.mktemp("first") / "store"
    return store, extend_context(**parameters_of(Recipe.load(recipe_file)), store=str(store))


@pytest.fixture
def store(first_run, tmp_path) -> Path:
    """A copy of the first run's store, to be broken."""
    shutil.copytree(first_run[0], tmp_path / "store")
    return tmp_path / "store"
