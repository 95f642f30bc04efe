"""`python -m longrecipe_core.training job.json`, started on every rank by `accelerate launch`."""

import os
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
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is on disk. The interpreter's own end would tear down gloo's threads, which now and then hang or abort the
    # process (torch 2.13), and a job that is done would be taken for one that was killed.
    os._exit(code)
