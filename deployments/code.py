"""Where a run's code comes from: the pull step of `prefect.yaml`."""

import os
from pathlib import Path

from prefect.deployments.steps.pull import git_clone, set_working_directory

from deployments.names import CODE, CODE_BRANCH


def pull() -> dict[str, str]:
    """Go to the code that the worker's environment names; returns its `directory`, as Prefect's own steps do.

    `LONGRECIPE_CODE` is a git repository's URL, cloned for each run (`LONGRECIPE_CODE_BRANCH`, else its default branch;
    with the worker's own git credentials), or a directory on the worker. When it is not set, it is where this package
    lies: a checkout that was installed with `pip install -e`, or the image's site-packages.
    """
    place = os.environ.get(CODE) or str(Path(__file__).resolve().parents[1])
    if place.startswith("git@") or "://" in place:
        cloned = git_clone(place, branch=os.environ.get(CODE_BRANCH) or None)
        assert isinstance(cloned, dict)  # and no coroutine: no event loop runs in this thread
        return cloned
    return set_working_directory(place)
