"""Which workers run a stage's shards."""

from longrecipe_core.fan_out import Engine, local_engine
from tasks.run import Work


def engine(work: Work) -> Engine:
    """Processes of this machine, or Ray workers: as the recipe or the environment says."""
    return local_engine(work.run.recipe.launch.workers, work.log)
