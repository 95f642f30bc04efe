"""For every layer: quiet libraries, no telemetry, few threads, so that tests can run beside each other."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# A run's own server needs its time on a loaded machine.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
# Processes that tests start, start sooner: see the file there.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent / "start_up"), os.environ.get("PYTHONPATH")])
)
# Not the user's, and none that two workers write.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="longrecipe-prefect-")
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# How long an example takes says nothing on a loaded machine.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)
