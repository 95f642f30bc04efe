"""`python -m longrecipe_core.evaluation job.json`."""

import sys
from pathlib import Path

from longrecipe_core.errors import run_job
from longrecipe_core.evaluation.evaluate import evaluate
from longrecipe_core.evaluation.job import EvaluationJob


def main() -> int:
    """Evaluate as the job file says; see `run_job` for the exit code."""
    job = EvaluationJob.model_validate_json(Path(sys.argv[1]).read_text())
    return run_job(lambda: evaluate(job))


if __name__ == "__main__":
    sys.exit(main())
