"""`python -m longrecipe_core.training job.json`, started on every rank by `accelerate launch`."""

import sys
from pathlib import Path

from longrecipe_core.errors import LongRecipeError
from longrecipe_core.training.job import TrainingJob
from longrecipe_core.training.loop import train


def main() -> int:
    """Train as the job file says; a known error is one line, the rest keep their traceback."""
    job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text())
    try:
        train(job)
    except LongRecipeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
