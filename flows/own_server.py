"""Prefect's temporary server of one run on the command line, which must not end before that run."""

import signal

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED


def start_own_server() -> None:
    """Start it as Prefect would, but deaf to SIGINT; nothing where a server is configured. It ends with this process.

    A terminal sends Ctrl-C to both. With the server gone first, Prefect asks it for minutes before the run ends.
    """
    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits what is blocked
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
