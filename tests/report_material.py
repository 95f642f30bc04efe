"""A store with a run's artifacts made by hand, without a training, and the report of it.

    PYTHONPATH=.:tests .venv/bin/python tests/report_material.py DIRECTORY

makes one; `tests/system/report_pictures.py` takes pictures.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, fingerprint
from longrecipe_core.evaluation.paired import write_documents
from longrecipe_core.evaluation.plot import plot_needles, plot_nll
from longrecipe_core.evaluation.table import SCHEMA
from longrecipe_core.positions import make_positions
from longrecipe_core.positions.index_shards import index_writer
from longrecipe_core.recipe import Recipe, stage_part
from tasks.evaluation import report
from tasks.run import Run
from tasks.stages import STAGES, stage_key, used_inputs, used_stages

HOSTILE = "/data/<script>alert('x')</script>/\"&amp;```{{ 7 * 7 }}|`<b>.txt"
MODELS = ["base", "base, RoPE change only", "stage 0, extended", "stage 1, annealed", "stage 2, merged"]
TASKS = ["single", "multikey"]
WINDOW, TARGET, TRAIN, SAMPLES = 256, 1024, 307, 24
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "tie_word_embeddings": True,
    "max_position_embeddings": TARGET,
    "rope_theta": 40_000.0,
}


def make_recipe(path: str = HOSTILE, name: str = "by-hand") -> Recipe:
    training = {"learning_rate": 3e-3, "steps": 40, "global_batch": 4, "precision": "fp32"}
    tree = {
        "name": name,
        "base": {"vocabulary_size": 300, "hidden_size": 64, "layers": 2, "window": WINDOW, "training": training},
        "context": {"window": WINDOW, "target_length": TARGET, "train_length": TRAIN},
        "corpus": {"sources": [{"path": path}]},
        "extend": training,
        "replay": {"sources": [{"path": path, "format": "jsonl", "prompt_column": "q", "response_column": "a"}]},
        "anneal": training | {"schedule": "linear"},
    }
    return Recipe.parse(yaml.safe_dump(tree))


def make_run(root: Path, recipe: Recipe | None = None, adopted: str | None = None) -> SimpleNamespace:
    """A store below `root` with every stage but `report`: `run`, `store`, `refs` by stage's name.

    `adopted` names a stage whose checkpoint counts as adopted.
    """
    recipe = recipe or make_recipe()
    run = Run(recipe=recipe, store=str(root / "store"))
    store = ArtifactStore(run.store, root / "cache")
    path = recipe.corpus.sources[0].path
    refs = {
        name: ArtifactRef(uri=path, kind="outside", fingerprint=fingerprint(name))
        for name in ("corpus", "replay_sources")
    }
    for number, stage in enumerate(used_stages(recipe)):
        if stage.name == "report":
            break
        output = root / "made" / stage.name
        output.mkdir(parents=True)
        metrics = fill(stage.name, output)
        inputs = {name: refs[name] for name in used_inputs(recipe, stage)}
        source = SimpleNamespace(uri=path, content="0" * 64) if stage.name == adopted else None
        refs[stage.name] = store.commit(
            stage.kind,
            stage_key(recipe, stage, inputs),
            output,
            inputs={} if source else inputs,
            recipe=stage_part(recipe, stage.name),
            seconds=10.0 + number,
            metrics=metrics,
            stage=(stage.name, STAGES[stage.name].version),
            adopted=_adopted(source),
        )
    return SimpleNamespace(run=run, store=store, refs=refs, recipe=recipe)


def _adopted(source):
    from longrecipe_core.artifacts import Adopted

    return source and Adopted(uri=source.uri, content_sha256=source.content)


def make_report(made: SimpleNamespace) -> Path:
    """The report's directory, made by its stage."""
    refs = made.refs
    outcome = report.fn(made.run, refs["evaluate"], refs["merge"], refs["index"], refs.get("score"))
    refs["report"] = outcome.ref
    return Path(outcome.ref.uri)


def fill(stage: str, output: Path) -> dict:
    """Write what a stage makes; returns its metrics."""
    if STAGES[stage].kind == "checkpoint":
        (output / "config.json").write_text(json.dumps(CONFIG))
        (output / "model.safetensors").write_bytes(stage.encode() * 100)
        (output / "tokenizer.json").write_text("{}")
        if stage == "merge":
            return {"parameters": 1234}
        (output / "about").mkdir()
        steps = [step(number, 2 if stage == "base" else 0) for number in range(1, 41)]
        (output / "about" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
        return {"steps": 40, "tokens": sum(row["tokens"] for row in steps), "parameters": 1234}
    if stage == "index":
        write_index(output)
        histogram = [0.05 + 0.002 * (place % 5) for place in range(20)]
        selection = {"tokens_kept": SAMPLES * TRAIN, "share_kept": 0.3, "histogram": histogram}
        return {"samples": SAMPLES, "selection": selection | {"histogram_available": [0.05] * 20}}
    if stage == "evaluate":
        return write_evaluation(output)
    (output / "data.bin").write_bytes(stage.encode())
    return {"tokens": 12_345, "rows": 40} if stage == "replay" else {}


def step(number: int, above: float) -> dict:
    loss = 3.4 + above * np.exp(-number / 8) + 0.05 * np.sin(number)
    figures = {"tokens_per_second": 4 * TRAIN / 0.5, "peak_memory_mb": 900.0 + number}
    return {"step": number, "steps": 40, "tokens": 4 * TRAIN, "loss": loss, "lr": 1e-3, "seconds": 0.5} | figures


def write_index(output: Path) -> None:
    rng = np.random.default_rng(1)
    with index_writer(output) as writer:
        for sample in range(SAMPLES):
            positions = make_positions("longrecipe", [100, 107, 100], TARGET, rng)
            starts = np.flatnonzero(np.diff(positions, prepend=-2) != 1)
            lengths = np.diff(starts, append=TRAIN)
            columns = (starts, positions[starts], lengths)
            writer.append((sample, *(column.astype(np.int32) for column in columns)), 1)


def evaluation_rows() -> list[dict]:
    """Of every measure some, the same in each run."""
    rng = np.random.default_rng(0)
    rows = []
    for number, model in enumerate(MODELS):
        for start in range(0, TARGET, 128):
            losses = 3.9 - 0.1 * number + 0.0004 * start * (number == 0) + 0.05 * rng.standard_normal(6)
            row = {"measure": "nll", "start": start, "end": start + 128, "value": float(losses.mean()), "count": 768}
            row["standard_error"] = float(losses.std(ddof=1) / 6**0.5)
            documents = [(at, float(128 * loss), 128) for at, loss in enumerate(losses)]
            rows.append({"model": model, "documents": documents} | row)
        for distance in (100, 900):
            share = min(1.0, 0.2 * number + 0.1)
            row = {"measure": "passkey", "start": distance, "end": distance, "value": share, "count": 20}
            rows.append({"model": model, "standard_error": 0.05} | row)
        for task in TASKS:
            for length in (256, 512, 1024):
                for depth in (0.0, 0.5, 1.0):
                    score = max(0.0, min(100.0, 20.0 * number + 40 - 0.04 * length + 20 * depth))
                    place = {"task": task, "length": length, "depth": depth, "haystack": "documents"}
                    rows.append({"model": model, "measure": "needle", "value": score, "count": 10} | place)
        for length in (256, 1024):
            rows.append({"model": model, "measure": "context_nll", "length": length, "value": 3.5, "count": 99})
            rows.append({"model": model, "measure": "ruler", "task": "vt", "length": length, "value": 50.0, "count": 9})
            rows.append({"model": model, "measure": "ruler_mean", "length": length, "value": 50.0, "count": 9})
        rows.append({"model": model, "measure": "effective_length", "value": 256.0, "count": 18})
        rows.append({"model": model, "measure": "ppl", "length": TARGET, "value": 33.4, "count": 999})
        keys = {"measure": "long_ppl", "task": "key tokens of base", "length": TARGET}
        rows.append({"model": model, "value": float("nan") if number == 4 else 12.5, "count": 7} | keys)
        copied = {"measure": "copying", "start": 300, "end": 300, "value": 0.1 * number, "count": 8}
        rows.append({"model": model, "standard_error": 0.02} | copied)
        solved = {"measure": "benchmark", "task": "arc_easy", "metric": "acc_norm", "value": 0.25 + 0.01 * number}
        rows.append({"model": model, "standard_error": 0.011, "count": 2376} | solved)
        rows.append({"model": model, "measure": "something_new", "length": 77, "value": 1.25, "count": 1})
    return [{"seed": 2027} | row for row in rows]


def write_evaluation(output: Path) -> dict:
    rows = evaluation_rows()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), output / "evaluation.parquet")
    write_documents(rows, output)
    plot_nll(rows, WINDOW, output / "nll.png")
    plot_needles([row for row in rows if row["measure"] == "needle"], output / "needles.png", dpi=40)
    means = {"inside_window": 3.9, "last_quarter": 4.2}
    return {"window": WINDOW, "nll": {model: means for model in MODELS}}


if __name__ == "__main__":
    print(make_report(make_run(Path(sys.argv[1]), make_recipe("documents/*.txt"))))
