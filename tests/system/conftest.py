"""What system tests share."""

import pytest
from browser import visible_text
from postgres_server import postgres  # noqa: F401
from prefect_site import Site, write_recipe
from shell_environment import shell_environment
from training_material import make_material, train, write_job


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What the page of a fixture shows, beside the error."""
    report = yield
    if call.excinfo is not None and (page := getattr(item, "funcargs", {}).get("page")) is not None:
        report.sections.append(("page", f"{page.url}\n{visible_text(page)}"))
    return report


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """See `shell_environment`."""
    return shell_environment(tmp_path)


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """A tiny model and samples to train it on."""
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def finished(material, tmp_path_factory):
    """Directories of jobs that ran without interruption, each made once; arguments as for `write_job`."""
    runs = {}

    def get(processes, code=None, **changes):
        key = repr((processes, code, sorted(changes.items())))
        if key not in runs:
            directory = write_job(material, tmp_path_factory.mktemp("whole") / "run", processes, **changes)
            runs[key] = train(directory, processes, code)
        return runs[key]

    return get


@pytest.fixture(scope="session")
def site(tmp_path_factory, postgres):  # noqa: F811
    """A server with the project's deployments and a worker."""
    directory = tmp_path_factory.mktemp("site")
    site = Site(directory, write_recipe(directory), postgres.make_database("site"))
    yield site
    site.close()
