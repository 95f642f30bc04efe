"""Names that prefect.yaml, set-up and `make ui` share; known without importing Prefect."""

WORK_POOL = "longrecipe"

CODE, CODE_BRANCH = "LONGRECIPE_CODE", "LONGRECIPE_CODE_BRANCH"
"""In a worker's environment: where a run's code comes from, see `deployments.code`."""

NOTIFY_URL, NOTIFY_BLOCK = "LONGRECIPE_NOTIFY_URL", "LONGRECIPE_NOTIFY_BLOCK"
"""In the environment of set-up: where messages go."""
