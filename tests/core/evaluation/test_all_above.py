"""Which artifacts the report takes for those of its run."""

from types import SimpleNamespace
from typing import Any

from longrecipe_core.artifacts import Lineage
from longrecipe_core.evaluation.report.stages import all_above


def made(uri: str, **inputs: Lineage) -> Lineage:
    manifest: Any = SimpleNamespace(inputs=[SimpleNamespace(name=name.replace("__", ".")) for name in inputs])
    return Lineage(uri, "checkpoint", uri, manifest, inputs=tuple(inputs.values()))


def test_trainings_of_a_model_that_is_only_measured_are_none_of_the_run() -> None:
    base = Lineage("base", "outside", "base", None)
    extend = made("extend", base=base)
    merge = made("merge", base=base, anneal=made("anneal", extend=extend))
    foreign = made("their merge", anneal=made("their anneal", extend=made("their extend", base=base)))
    evaluate = made("evaluate", base=base, merge=merge, evaluation__models__theirs=foreign)
    found = all_above([evaluate, merge])
    assert [one.uri for one in found] == ["base", "extend", "anneal", "merge", "their merge", "evaluate"]
    assert next(one for one in found if one.uri == "their merge").manifest is None


def test_a_model_of_the_run_under_another_name_stays_the_runs() -> None:
    merge = made("merge", base=Lineage("base", "outside", "base", None))
    found = all_above([made("evaluate", merge=merge, evaluation__models__again=merge)])
    assert next(one for one in found if one.uri == "merge").manifest is merge.manifest
