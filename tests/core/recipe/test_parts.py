"""Which key decides which stage."""

import json
from pathlib import Path

import pytest
import yaml
from all_keys import BASE, MODEL

from longrecipe_core.recipe import Recipe, stage_part

ROOT = Path(__file__).resolve().parents[3]


STAGES = ["base", "tokenize", "warmup", "score", "index", "extend", "replay", "anneal", "merge", "evaluate", "report"]
STAGES += ["measure"]  # of no recipe's run

TRAINING = {
    "learning_rate": "7e-4",
    "schedule": "cosine",
    "warmup_steps": "4",
    "steps": "51",
    "epochs": "2",
    "global_batch": "16",
    "betas": "[0.9, 0.95]",
    "epsilon": "1e-6",
    "weight_decay": "0",
    "clip": "2",
    "precision": "bf16",
    "lora.rank": "4",
    "lora.alpha": "8",
    "lora.targets": "all-linear",
    "lora.train_embeddings_and_norms": "false",
}
SOURCE = {
    "path": ("other", ""),
    "format": ("parquet", "+"),
    "subset": ("two", "+"),
    "split": ("test", "+"),
    "revision": ("other", ""),
    "text_column": ("body", "+"),
    "prompt_column": ("other", "+"),
    "response_column": ("other", "+"),
    "ids_column": ("other", "+"),
    "tokenizer": ("other", ""),
    "limit": ("6", "+"),
    "bad_rows": ("skip", "+"),
    "longest_row": ("2000", "+"),
}
# Key: the changed value, and every stage whose part must change by it. Typed by hand from design.md: what decides
# a result is in, what only says where or how fast is out, and a path enters by content.
DECIDES = {
    "name": ("other", "report"),
    "seed": ("1", "base warmup score index extend replay anneal evaluate measure"),
    "model.path": ("other", ""),
    "model.revision": ("other", ""),
    "model.trust_remote_code": ("true", "tokenize warmup score index extend replay anneal evaluate measure"),
    "base.vocabulary_size": ("513", "base"),
    "base.hidden_size": ("64", "base"),
    "base.intermediate_size": ("128", "base"),
    "base.layers": ("5", "base"),
    "base.query_heads": ("8", "base"),
    "base.kv_heads": ("2", "base"),
    "base.window": ("128", "base"),
    "base.rope_theta": ("5e5", "base"),
    **{f"base.training.{key}": (value, "base") for key, value in TRAINING.items() if not key.startswith("lora.")},
    "base.copies.share": ("0.6", "base"),
    "base.copies.span": ("[8, 31]", "base"),
    "base.copies.far_share": ("0.6", "base"),
    "base.copies.random_share": ("[0, 0.6]", "base"),
    "base.minimum_copying.distances": ("[20]", "base"),  # what is measured is kept with the result
    "base.minimum_copying.span": ("15", "base"),
    "base.minimum_copying.samples": ("63", "base"),
    "base.minimum_copying.accuracy": ("0.8", ""),  # and compared with this in every run
    "context.target_length": ("2048", "warmup index extend evaluate measure"),
    "context.train_length": ("200", "index extend replay anneal evaluate"),
    "context.window": ("128", "warmup score index extend evaluate measure"),
    "rope.type": ("yarn", "warmup extend evaluate"),
    "rope.theta": ("{type: theta, theta: 5e5}", "warmup extend evaluate"),
    "rope.factor": ("5", "warmup extend evaluate"),
    **{f"corpus.sources.{key}": (v, "base tokenize" if part else "") for key, (v, part) in SOURCE.items()},
    "corpus.validation_share": ("0.1", "base tokenize"),
    "corpus.sources.weight": ("2.5", "index"),
    "corpus.sources.validation_share": ("0.3", "base tokenize"),
    "corpus.minimum_tokens": ("11", "base tokenize"),
    "corpus.maximum_tokens": ("100001", "base tokenize"),
    "corpus.deduplicate": ("near", "base tokenize"),
    "corpus.similarity": ("0.9", "base tokenize"),
    "corpus.upsampling.longer_than": ("501", "index"),
    "corpus.upsampling.share": ("0.8", "index"),
    "selection.strategy": ("random", "warmup score index"),
    "selection.top_share": ("0.3", "index"),
    "selection.rank_by": ("share", "index"),
    "selection.minimum_count": ("2", "index"),
    "score.source": ("{source: long-short, documents: 8, length: 256, precision: fp32}", "warmup score"),
    "score.model": (
        "{source: model, model: {path: SECRET-x}, documents: 8, length: 256, precision: fp32}",
        "warmup score",
    ),
    **{f"score.warmup.{key}": (value, "warmup") for key, value in TRAINING.items()},
    "score.documents": ("9", "score"),
    "score.length": ("255", "score"),
    "score.short_length": ("{source: long-short, short_length: 32}", "warmup score"),
    "score.top": ("0.1", "score"),
    "score.precision": ("bf16", "score"),
    "positions.right_point": ("101", "index"),
    "positions.cream_sigma": ("2.5", "index"),
    "positions.cream_head": ("9", "index"),
    "positions.cream_relativity": ("0.6", "index"),
    "positions.strategy": ("pose", "index"),
    "positions.sentences_per_segment": ("[1, 2]", "index"),
    "positions.chunks": ("3", "index"),
    "positions.sentence_ends": ("'.'", "index"),
    "index.samples": ("101", "index"),
    **{f"extend.{key}": (value, "extend") for key, value in TRAINING.items()},
    **{f"replay.sources.{key}": (v, "replay" if part else "") for key, (v, part) in SOURCE.items()},
    "replay.separator": ("' '", "replay"),
    "replay.loss_on_prompt": ("false", "anneal"),
    "replay.attention_across_samples": ("false", "anneal"),
    **{f"anneal.{key}": (value, "anneal") for key, value in TRAINING.items()},
    "merge.base_weight": ("0.25", "merge"),
    "merge.trained_weight": ("0.75", "merge"),
    "merge.dtype": ("fp32", "merge"),
    "evaluation.documents": ("33", "evaluate measure"),
    "evaluation.minimum_length": ("501", "evaluate measure"),
    "evaluation.buckets": ("9", "evaluate measure"),
    "evaluation.precision": ("bf16", "evaluate measure"),
    "evaluation.passkey.distances": ("[100]", "evaluate measure"),
    "evaluation.passkey.trials": ("21", "evaluate measure"),
    "evaluation.copying.distances": ("[100]", "evaluate measure"),
    "evaluation.copying.span": ("17", "evaluate measure"),
    "evaluation.copying.samples": ("65", "evaluate measure"),
    "evaluation.needle.lengths": ("[512]", "evaluate measure"),
    "evaluation.needle.depths": ("[0, 1]", "evaluate measure"),
    "evaluation.needle.tasks": ("[single]", "evaluate measure"),
    "evaluation.needle.distractors": ("4", "evaluate measure"),
    "evaluation.needle.haystack": ("noise", "evaluate measure"),
    "evaluation.needle.trials": ("11", "evaluate measure"),
    "evaluation.ruler.lengths": ("[512]", "evaluate measure"),
    "evaluation.ruler.tasks": ("[cwe, qa_1, qa_2]", "evaluate measure"),
    "evaluation.ruler.samples": ("21", "evaluate measure"),
    "evaluation.ruler.threshold": ("80", "evaluate measure"),
    "evaluation.ruler.squad.path": ("other", ""),
    "evaluation.ruler.squad.sha256": ("b" * 64, "evaluate measure"),
    "evaluation.ruler.hotpotqa.path": ("other", ""),
    "evaluation.ruler.hotpotqa.sha256": ("b" * 64, "evaluate measure"),
    "evaluation.long_ppl.short_length": ("129", "evaluate measure"),
    "evaluation.long_ppl.step": ("65", "evaluate measure"),
    "evaluation.long_ppl.difference": ("1", "evaluate measure"),
    "evaluation.long_ppl.likelihood": ("-1", "evaluate measure"),
    "evaluation.long_ppl.evaluator": ("merged", "evaluate measure"),
    "evaluation.context_nll.lengths": ("[128]", "evaluate measure"),
    "evaluation.context_nll.stride": ("32", "evaluate measure"),
    "evaluation.benchmarks.tasks": ("[gsm8k, own]", "evaluate measure"),
    "evaluation.benchmarks.include_path": ("SECRET-x", ""),
    "evaluation.benchmarks.limit": ("6", "evaluate measure"),
    "evaluation.benchmarks.fewshot": ("0", "evaluate measure"),
    "evaluation.benchmarks.max_gen_toks": ("32", "evaluate measure"),
    "evaluation.benchmarks.lengths": ("[512]", "evaluate measure"),
    "evaluation.benchmarks.batch_size": ("1", ""),
    "evaluation.benchmarks.confirm_unsafe": ("true", ""),
    "evaluation.stages": ("[base]", "evaluate"),
    "evaluation.models.name": ("another", "evaluate"),
    "evaluation.models.path": ("SECRET-x", ""),
    "evaluation.models.revision": ("SECRET-x", ""),
    "evaluation.models.rope.type": ("linear", "evaluate"),
    "evaluation.models.rope.theta": ("{type: theta, theta: 5e5}", "evaluate"),
    "evaluation.models.rope.factor": ("3", "evaluate"),
    "promotion.short": ("0.1", ""),
    "promotion.long": ("0", ""),
    "promotion.passkey": ("0.5", ""),
    "launch.processes": ("2", ""),
    "launch.micro_batch": ("2", ""),
    "launch.machines": ("{processes: 2, machines: 2}", ""),
    "launch.parallel": ("{processes: 2, parallel: ring}", ""),
    "launch.sequence_degree": ("{processes: 4, parallel: ring, sequence_degree: 2}", ""),
    "launch.ulysses_degree": ("{processes: 4, parallel: usp, ulysses_degree: 4}", ""),
    "launch.sharding": ("{processes: 2, sharding: fsdp2}", ""),
    "launch.cpu_offload": ("{processes: 2, sharding: fsdp2, cpu_offload: true}", ""),
    "launch.threads": ("2", ""),
    "launch.workers": ("3", ""),
    "launch.engine": ("ray", ""),
    "launch.ray_address": ("ray://there:10001", ""),
    "launch.score_devices": ("[cpu, cuda]", ""),
    "launch.activation_checkpointing": ("full", ""),
    "launch.mlp_tile": ("64", ""),
    "launch.loss_chunk": ("100", ""),
    "launch.checkpoint_every": ("7", ""),
    "launch.checkpoints_kept": ("5", ""),
    "launch.restarts": ("7", ""),
    "launch.preemption_grace": ("7", ""),
    "launch.gpu_limit": ("other", ""),
    "launch.collective_timeout": ("60", ""),
}


def leaves(tree, front=""):
    for key, value in tree.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                yield from leaves(entry, f"{front}{key}.")
        elif isinstance(value, dict):
            yield from leaves(value, f"{front}{key}.")
        else:
            yield f"{front}{key}"


def parts(recipe):
    return {stage: json.dumps(stage_part(recipe, stage), sort_keys=True) for stage in STAGES}


def test_the_table_has_every_key_of_the_recipe():
    """A new key needs a row: which stages' results does it decide?"""
    found = set(leaves(yaml.safe_load(Recipe.parse(BASE).to_yaml())))
    found |= set(leaves(yaml.safe_load(Recipe.parse(BASE, MODEL).to_yaml())))
    assert found - {"model", "base", "base.training.lora"} == set(DECIDES)  # the last is null or refused


@pytest.mark.parametrize("key", DECIDES)
def test_a_key_changes_the_parts_of_its_stages_only(key):
    value, stages = DECIDES[key]
    start = list(MODEL) if key.startswith("model.") else []
    also = ["score=null"] if key == "selection.strategy" else []
    section, _, name = key.rpartition(".")
    if section.endswith(".sources"):
        # Ids stand in one of the two sources, prompts in the other.
        number = int((name in ("ids_column", "tokenizer")) != section.startswith("corpus"))
        changes = [f"{section}.{number}.{name}={value}"]
    else:
        changes = [f"{section}={value}" if value.startswith("{") else f"{key}={value}"]
    changes = [change.replace("evaluation.models.", "evaluation.models.0.") for change in changes]
    before = Recipe.parse(BASE, start)
    after = Recipe.parse(BASE, [*start, *changes, *also])
    assert before != after
    old, new = parts(before), parts(after)
    assert {stage for stage in STAGES if old[stage] != new[stage]} == set(stages.split())


@pytest.mark.parametrize("start", [(), MODEL], ids=["base", "model"])
def test_no_path_enters_a_part(start):
    recipe = Recipe.parse(BASE, start)
    assert "SECRET" in recipe.to_yaml()
    assert "SECRET" not in "".join(parts(recipe).values())


@pytest.mark.parametrize("stage", ["base", "warmup", "extend", "anneal"])
def test_a_training_without_lora_has_the_part_that_it_had_before_lora_came(stage):
    full = ["score.warmup", "extend", "anneal"]
    part = stage_part(Recipe.parse(BASE, [f"{section}.lora=null" for section in full]), stage)
    training = part["base"]["training"] if stage == "base" else part["training"]
    assert set(training) == {key for key in TRAINING if not key.startswith("lora.")}
    if stage != "base":
        assert stage_part(Recipe.parse(BASE), stage)["training"]["lora"]["rank"] == 8


def test_a_base_without_copies_has_the_part_that_it_had_before_they_came():
    part = stage_part(Recipe.parse(BASE, ["base.copies=null", "base.minimum_copying=null"]), "base")
    assert {"copies", "minimum_copying"} & set(part["base"]) == set()
    assert part["base"]["training"]["steps"] == 50


@pytest.mark.parametrize("stage", ["evaluate", "measure"])
def test_an_evaluation_without_later_measures_has_the_part_that_it_had_before_they_came(stage):
    later = ("passkey", "copying", "needle", "ruler", "long_ppl", "context_nll", "benchmarks", "stages", "models")
    none = [f"evaluation.{name}=null" for name in later]
    assert stage_part(Recipe.parse(BASE, [*none, "evaluation.minimum_length=null"]), stage)["evaluation"] == {
        "documents": 32,
        "minimum_length": None,
        "buckets": 8,
        "precision": "fp32",
        "passkey": None,
    }


def test_which_models_are_measured_is_no_matter_of_their_order_nor_of_where_they_are():
    evaluate = stage_part(Recipe.parse(BASE), "evaluate")
    assert evaluate == stage_part(Recipe.parse(BASE, ["evaluation.stages=[merge, base]"]), "evaluate")
    of_base = stage_part(
        Recipe.parse(BASE, ["evaluation.models.0.path=null", "evaluation.models.0.revision=null"]), "evaluate"
    )
    assert evaluate != of_base  # the same RoPE change of the base model instead


def test_an_unknown_stage_has_no_part():
    with pytest.raises(KeyError):
        stage_part(Recipe.parse(BASE), "extent")


def test_what_is_measured_with_the_rope_change_only_depends_on_it_too():
    recipe = Recipe.parse(BASE)
    part = stage_part(recipe, "measure_rope")
    assert part == stage_part(recipe, "measure") | {"rope": recipe.rope.model_dump(mode="json")}
    other = Recipe.parse(BASE, ["rope={type: yarn}"])
    assert stage_part(other, "measure") == stage_part(recipe, "measure")
    assert stage_part(other, "measure_rope") != part
