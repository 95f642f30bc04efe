"""`python -m longrecipe_core.scoring job.json`."""

import sys
from pathlib import Path

from longrecipe_core.errors import LongRecipeError
from longrecipe_core.scoring.job import ScoringJob
from longrecipe_core.scoring.score import score


def main() -> int:
    """Score as the job file says; a known error is one line, the rest keep their traceback."""
    try:
        score(ScoringJob.model_validate_json(Path(sys.argv[1]).read_text()))
    except LongRecipeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
