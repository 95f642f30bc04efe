"""A directory for what a command writes beside the store."""

from pathlib import Path

from longrecipe_core.errors import LongRecipeError


def make_output(directory: Path) -> Path:
    """Make it before hours of work, not after them. Raises LongRecipeError where it can't be made."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LongRecipeError(f"--output {directory}: can't be written: {error}") from error
    return directory
