"""`python -m longrecipe_core.scoring job.json`."""

import sys
from pathlib import Path

from longrecipe_core.errors import run_job
from longrecipe_core.scoring.job import ScoringJob
from longrecipe_core.scoring.score import score


def main() -> int:
    """Score as the job file says; see `run_job` for the exit code."""
    job = ScoringJob.model_validate_json(Path(sys.argv[1]).read_text())
    return run_job(lambda: score(job))


if __name__ == "__main__":
    sys.exit(main())
