"""Prefect's own API for tests that run flows in this process."""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from polling import PATIENCE
from ports import free_port
from prefect.testing.utilities import prefect_test_harness


@contextlib.contextmanager
def prefect_harness() -> Iterator[None]:
    """A server with a database and a port of its own, which may take its time to start."""
    with (
        patch("prefect.testing.utilities._find_available_port", free_port),
        prefect_test_harness(server_startup_timeout=PATIENCE),
    ):
        yield
