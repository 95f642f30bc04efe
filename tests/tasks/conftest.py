"""What tests of tasks share."""

import pytest
from report_material import make_report, make_run


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """A run made by hand with its report; stage `extend` counts as adopted."""
    root = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGRECIPE_CACHE", str(root / "cache"))
        run = make_run(root, adopted="extend")
        run.report = make_report(run)
    return run
