"""The paper's comparison: one base, several ways of choosing tokens and positions, several seeds of each."""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import BaseModel

from flows.by_name import run_stages
from flows.lost_lease import outlive_lost_leases
from flows.markdown import image
from flows.output import make_output
from flows.parameters import default_store
from flows.recorded import recorded
from flows.summary import RunSummary
from longrecipe_core.artifacts import ArtifactRef
from longrecipe_core.cost.heads import check_recipe
from longrecipe_core.evaluation.measurements import Row
from longrecipe_core.evaluation.seeds_table import Table
from longrecipe_core.recipe.comparison import BASE, STRETCHED, Comparison, Training
from tasks.compared import reference_rows, training_rows, window_row
from tasks.evaluation import measure, measure_rope
from tasks.index import index
from tasks.names import artifact_key
from tasks.outside import inputs
from tasks.run import Run
from tasks.score import score
from tasks.scores import old_window
from tasks.training import extend, warmup


class Compared(BaseModel):
    """What a comparison gives back: its stages, its models by variant and seed, and where its tables are."""

    summary: RunSummary
    models: dict[str, dict[int, str]]
    output: str


outlive_lost_leases()


@flow(name="compare", flow_run_name="{comparison}")
def compare(
    comparison: str, overrides: list[str] | None = None, store: str | None = None, output: str | None = None
) -> Compared:
    """Train each variant of a comparison with each of its seeds, and measure all on the same documents and prompts.

    Every stage is skipped whose result is in the store, so that the same run goes on where one has ended.

    Args:
        comparison: file or fsspec URL of a comparison, such as recipes/compare-tiny.yaml
        overrides: changes of the shared recipe's keys as section.key=value, one each; variants' own come after
        store: where artifacts are kept: a directory or any fsspec URL; else LONGRECIPE_STORE, else ./artifacts
        output: directory for tables, rows and picture; comparison/NAME when not given
    """
    asked = Comparison.load(comparison, overrides or ())
    check_recipe(asked.shared)
    run = Run(recipe=asked.shared, store=store or default_store())
    directory = make_output(Path(output or Path("comparison") / asked.name))
    models: dict[str, dict[int, str]] = {}

    # The cards of one training and one evaluation would be drawn of dozens.
    with recorded(run, "compare", cards=("stages",)) as summary:
        # One base, one set of tokens: the shared recipe's seed. Both references are measured, not trained.
        refs = run_stages(run, summary, "tokenize")
        rows = references(run, summary, refs)
        for training in asked.trainings():
            extended, own = train(run, summary, training, refs)
            models.setdefault(training.variant, {})[training.seed] = extended.uri
            rows += own
        publish(run, asked, rows, directory)
    return Compared(summary=summary, models=models, output=str(directory))


def references(run: Run, summary: RunSummary, refs: dict[str, ArtifactRef]) -> list[Row]:
    """The base, and the base with its RoPE change only."""
    base, tokens, store = refs["base"], refs["tokenize"], run.open_store()
    rows = [window_row(BASE, old_window(run, base))]
    rows += reference_rows(store, BASE, summary.add(measure(run, base, tokens)))
    if run.recipe.rope.type != "none":
        rows += reference_rows(store, STRETCHED, summary.add(measure_rope(run, base, tokens)))
    return rows


def train(
    run: Run, summary: RunSummary, training: Training, refs: dict[str, ArtifactRef]
) -> tuple[ArtifactRef, list[Row]]:
    """One variant with one seed: the model, and its rows."""
    base, tokens = refs["base"], refs["tokenize"]
    own = run.model_copy(update={"recipe": training.recipe})
    seeded = run.model_copy(update={"recipe": training.seeded()})

    # Scores are the variant's, whatever the seed of its training.
    scores, section = None, own.recipe.score
    if section:
        warmed = summary.add(warmup(own, base, tokens)) if section.warmup else None
        score_model = inputs(own)["score_model"] if section.model else None
        scores = summary.add(score(own, base, tokens, warmed, score_model))

    samples = summary.add(index(seeded, base, tokens, scores))
    extended = summary.add(extend(seeded, base, tokens, samples))
    # The shared recipe's seed draws documents and prompts, the same for all.
    measured = summary.add(measure(run, extended, tokens))
    return extended, training_rows(run.open_store(), training, extended, measured)


def publish(run: Run, asked: Comparison, rows: list[Row], directory: Path) -> None:
    """Tables, rows and picture: as files, and on the run's page."""
    from longrecipe_core.evaluation.seeds_report import PICTURE, write_comparison  # matplotlib

    tables = write_comparison(rows, directory, asked.name, asked.reference)
    create_table_artifact(
        [dict(zip(tables[0].head, cells, strict=True)) for cells in tables[0].rows],
        key=artifact_key(run.recipe, "comparison"),
        description=tables[0].title,
    )
    picture = image((directory / PICTURE).read_bytes(), "loss by position and copying by distance")
    create_markdown_artifact(
        page(picture, tables), key=artifact_key(run.recipe, "comparison-tables"), description="All tables"
    )


def page(picture: str, tables: list[Table]) -> str:
    """In Markdown."""
    return "\n\n".join([picture, *(table.markdown() for table in tables)]) + "\n"
