"""A merged model with its card, to the hub or to any URL: only when somebody asks for it."""

from prefect import flow

from flows.lost_lease import outlive_lost_leases
from flows.parameters import default_store
from longrecipe_core.artifacts import ArtifactStore
from longrecipe_core.errors import PublishError
from longrecipe_core.publishing import Published, check_target
from longrecipe_core.recipe import Recipe
from tasks import publish as tasks
from tasks.run import run_log

outlive_lost_leases()


@flow(name="publish", flow_run_name="publish · {target}")
def publish(
    *,
    target: str,
    recipe: str | None = None,
    overrides: list[str] | None = None,
    model: str | None = None,
    private: bool = False,
    replace: bool = False,
    store: str | None = None,
) -> Published:
    """Copy the merged model of a recipe that has been run, with its card, to the target; nothing is computed.

    What arrived is compared with the digests of what was sent.

    Args:
        target: hf://ORGANIZATION/NAME, or a directory or any fsspec URL; credentials come from the worker's environment
        recipe: file or fsspec URL of the recipe whose merged model is published
        overrides: changes of single keys as section.key=value, one each, as they were when the recipe was run
        model: URI of a report or of a merged model, in place of a recipe
        private: on the hub, a repository that is made new is private
        replace: put this model in the place of another one that is at the target
        store: where artifacts are kept; LONGRECIPE_STORE of the worker when not given, else ./artifacts
    """
    check_target(target, private)
    if model is not None:
        where, report = tasks.report_of_artifact(model)
    elif recipe is not None:
        where = ArtifactStore(store or default_store())
        report = tasks.report_of_recipe(Recipe.load(recipe, overrides or ()), where)
    else:
        raise PublishError("neither recipe nor model is given: which model is to be published?")
    published = tasks.publish(where.root, report, target, private, replace)
    run_log()(f"published: {published.target}, {published.files} files, {published.bytes:,} bytes")
    return published
