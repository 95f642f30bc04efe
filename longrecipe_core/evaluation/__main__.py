"""`python -m longrecipe_core.evaluation job.json`."""

import sys
from pathlib import Path

from longrecipe_core.errors import LongRecipeError
from longrecipe_core.evaluation.evaluate import evaluate
from longrecipe_core.evaluation.job import EvaluationJob


def main() -> int:
    """Evaluate as the job file says; a known error is one line, the rest keep their traceback."""
    try:
        evaluate(EvaluationJob.model_validate_json(Path(sys.argv[1]).read_text()))
    except LongRecipeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
