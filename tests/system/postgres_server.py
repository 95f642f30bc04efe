"""A real PostgreSQL server on loopback for tests: `with serve() as server`, or the fixture `postgres`."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from polling import PATIENCE, wait_until
from ports import free_port

# What is thrown away in the end need not be on the disk, and sockets in a directory would be shared with other servers.
OPTIONS = ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "unix_socket_directories="]


@dataclass(frozen=True)
class PostgresServer:
    """Where it listens, and its superuser's password."""

    programs: Path
    port: int
    password: str

    def make_database(self, name: str) -> str:
        """Make an empty database and return its URL in the form that Prefect takes."""
        self.psql("postgres", f'CREATE DATABASE "{name}"')
        return f"postgresql+asyncpg://postgres:{self.password}@127.0.0.1:{self.port}/{name}"

    def psql(self, database: str, command: str) -> str:
        """The rows of one SQL command, cells with | between them; RuntimeError with what PostgreSQL says."""
        where = ["--username=postgres", f"--dbname={database}", "--no-psqlrc", "--tuples-only", "--no-align"]
        done = self.client("psql", *where, "--command", command)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def client(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one of PostgreSQL's own programs against the server."""
        return subprocess.run(
            [self.programs / program, "--host=127.0.0.1", f"--port={self.port}", *arguments],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )


@contextlib.contextmanager
def serve() -> Iterator[PostgresServer]:
    """A server with data of its own, gone afterwards."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None, key=lambda path: int(path.parts[4]))
    if programs is None:
        pytest.skip("PostgreSQL is not installed: make services")
    programs = programs.parent
    directory = Path(tempfile.mkdtemp(prefix="longrecipe-postgres-"))
    try:
        password = secrets.token_hex(16)
        (directory / "password").write_text(password)
        (directory / "data").mkdir()
        user: dict[str, Any] = {}
        if os.geteuid() == 0:  # as root PostgreSQL refuses to run
            user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            for path in (directory, *directory.iterdir()):
                shutil.chown(path, "postgres", "postgres")
        initialize = [programs / "initdb", "--pgdata=data", "--username=postgres", "--auth=scram-sha-256"]
        initialize += ["--pwfile=password", "--no-sync", "--no-locale", "--encoding=UTF8"]
        subprocess.run(initialize, cwd=directory, check=True, capture_output=True, timeout=PATIENCE, **user)
        for _ in range(3):  # a port may be taken between its choice and its use
            server = PostgresServer(programs, free_port(), password)
            with _running(server, directory, user) as ready:
                if ready:
                    yield server
                    return
        raise RuntimeError(f"PostgreSQL does not start:\n{(directory / 'log').read_text()[-3000:]}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _running(server: PostgresServer, directory: Path, user: dict[str, Any]) -> Iterator[bool]:
    options = [part for option in OPTIONS for part in ("-c", option)]
    command = [server.programs / "postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(server.port), *options]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, start_new_session=True, **user)
    try:
        wait_until(lambda: process.poll() is not None or server.client("pg_isready").returncode == 0, "for PostgreSQL")
        yield process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)  # ends at once, whoever is connected
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with serve() as server:
        yield server
