"""Stage `merge`: the weighted average of base and annealed model."""

import json
from pathlib import Path
from typing import Any

from longrecipe_core.artifacts import ArtifactRef
from tasks.run import Run, StageOutcome, Work, settle
from tasks.stage_task import stage_task

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


@stage_task("merge")
def merge(run: Run, base: ArtifactRef, anneal: ArtifactRef) -> StageOutcome:
    """Stage 2: average the base model's weights with the annealed model's."""
    return settle(run, "merge", {"base": base, "anneal": anneal}, _merge)


def _merge(work: Work) -> dict[str, Any]:
    from longrecipe_core.merging import merge_checkpoints
    from longrecipe_core.modeling import finish_checkpoint

    recipe, section = work.run.recipe, work.run.recipe.merge
    base, trained = work.fetch("base"), work.fetch("anneal")
    dtype = _stored_dtype(base) if section.dtype == "base" else DTYPES[section.dtype]
    merge_checkpoints(
        [(str(base), section.base_weight), (str(trained), section.trained_weight)],
        str(work.output),
        dtype=dtype,
    )
    trust = bool(recipe.model and recipe.model.trust_remote_code)
    summary = finish_checkpoint(work.output, trained, trust_remote_code=trust)
    return {"parameters": summary.parameters, "dtype": dtype}


def _stored_dtype(directory: Path) -> str:
    """The dtype that a model's config names; transformers 5 writes `dtype`, older ones `torch_dtype`."""
    config = json.loads((directory / "config.json").read_text())
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")
