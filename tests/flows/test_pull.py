"""Where a run's code comes from, as Prefect runs the step of prefect.yaml."""

import asyncio
import subprocess
from pathlib import Path

import pytest
import yaml
from prefect.deployments.steps.core import run_steps

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pulled(prefect_api, tmp_path, monkeypatch):
    """Run the step in an empty directory, as a worker does; gives the directory that it ends in."""
    monkeypatch.chdir(tmp_path)
    steps = yaml.safe_load((ROOT / "prefect.yaml").read_text())["pull"]

    def run() -> Path:
        outputs = asyncio.run(run_steps(steps, print_function=lambda line: None))
        return (tmp_path / outputs["directory"]).resolve()

    return run


def git(place: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=place, check=True, capture_output=True)


def test_the_installed_package(pulled, monkeypatch):
    monkeypatch.delenv("LONGRECIPE_CODE", raising=False)
    assert pulled() == ROOT == Path.cwd()


def test_a_directory_of_the_worker(pulled, tmp_path, monkeypatch):
    (tmp_path / "checkout").mkdir()
    monkeypatch.setenv("LONGRECIPE_CODE", str(tmp_path / "checkout"))
    assert pulled() == tmp_path / "checkout" == Path.cwd()


def test_a_repository_and_its_branch(pulled, tmp_path_factory, monkeypatch):
    repository = tmp_path_factory.mktemp("repository")
    git(repository, "init", "--quiet", "--initial-branch=main")
    for branch in ("main", "trial"):
        git(repository, "checkout", "--quiet", "-B", branch)
        (repository / "which").write_text(branch)
        git(repository, "add", "which")
        git(repository, "commit", "--quiet", "-m", branch)
    git(repository, "checkout", "--quiet", "main")
    monkeypatch.setenv("LONGRECIPE_CODE", f"file://{repository}")
    monkeypatch.setenv("LONGRECIPE_CODE_BRANCH", "trial")
    assert (pulled() / "which").read_text() == "trial"
