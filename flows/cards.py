"""What a run's page shows at the end."""

from flows.summary import RunSummary
from tasks.run import Run


def publish_cards(run: Run, summary: RunSummary, resume_command: str | None) -> None:
    """Publish the run's tables and plots as Prefect artifacts; for a failed run, the command that resumes it."""
