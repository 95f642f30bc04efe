"""`python -m longrecipe_core.training job.json`, started on every rank by `accelerate launch`."""

import sys
from pathlib import Path

from longrecipe_core.errors import run_job
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.loop import train


def main() -> int:
    """Train as the job file says; see `run_job` for the exit code."""
    job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text())
    return run_job(lambda: train(job))


if __name__ == "__main__":
    sys.exit(main())
