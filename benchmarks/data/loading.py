"""How long a training step waits for its samples, in a real training job of a tiny model."""

import tempfile
from pathlib import Path

from benchmarks.data import prose
from benchmarks.figures import Figure, Report
from longrecipe_core.corpus import TokenShards, load_tokenizer
from longrecipe_core.fan_out import Here
from longrecipe_core.launching import launch_training
from longrecipe_core.modeling import make_tiny_config, make_tiny_model
from longrecipe_core.positions.index import build_index
from longrecipe_core.recipe import (
    BaseSection,
    ContextSection,
    LaunchSection,
    PositionsSection,
    RopeSection,
    SelectionSection,
    TrainingSection,
)
from longrecipe_core.selection import token_classes
from longrecipe_core.training.job import DataSpec, TrainingJob
from longrecipe_core.training.metrics_file import read_metrics

WINDOW, TRAIN, TARGET, STEPS, BATCH, SEED = 1024, 2048, 8192, 20, 4, 2027


def measure(report: Report) -> None:
    """`loader_wait_share`: seconds waited over seconds of all steps, the first one included, where nothing is ahead."""
    prose.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prose.CACHE) as scratch:
        job = prepare(Path(scratch))
        launch_training(job, cuda=False, log=lambda line: None)
        rows = read_metrics(Path(scratch) / "logs" / "metrics.jsonl")
    seconds, waits = ([row[key] for row in rows] for key in ("seconds", "data_wait"))
    detail = {"steps": STEPS, "step_seconds": seconds, "wait_seconds": waits}
    report.add(Figure("loader_wait_share", sum(waits) / sum(seconds), "ratio", None, detail))
    later = sum(waits[1:]) / sum(seconds[1:])
    report.add(Figure("loader_wait_share_after_first", later, "ratio"))


def prepare(directory: Path) -> Path:
    """A tiny Llama, prose, an index of 2,048 to 8,192, and the job's JSON file."""
    tokenizer = load_tokenizer(prose.tokenizer())
    prose.write_long_documents(directory / "tokens", TARGET)
    build_index(
        TokenShards(directory / "tokens", "train"),
        token_classes(tokenizer),
        directory / "index",
        context=ContextSection(target_length=TARGET, train_length=TRAIN),
        selection=SelectionSection(),
        positions=PositionsSection(),
        samples=STEPS * BATCH,
        seed=SEED,
        engine=Here(),
    )
    training = TrainingSection(
        learning_rate=1e-3, schedule="constant", warmup_steps=0, steps=STEPS, global_batch=BATCH, precision="fp32"
    )
    base = BaseSection(
        hidden_size=64, intermediate_size=128, layers=2, query_heads=4, kv_heads=2, window=WINDOW, training=training
    )
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    make_tiny_model(make_tiny_config(base, len(tokenizer), **ids), prose.tokenizer(), directory / "model", seed=SEED)
    job = TrainingJob(
        stage="extend",
        model=directory / "model",
        rope=RopeSection(),
        window=WINDOW,
        target_length=TARGET,
        data=DataSpec(kind="indexed", tokens=directory / "tokens", index=directory / "index", length=TRAIN),
        training=training,
        launch=LaunchSection(processes=1, checkpoint_every=STEPS),
        seed=SEED,
        checkpoints=directory / "checkpoints",
        output=directory / "trained",
        logs=directory / "logs",
    )
    path = directory / "job.json"
    path.write_text(job.model_dump_json())
    return path
