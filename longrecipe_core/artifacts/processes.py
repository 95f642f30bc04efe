"""Which process on which machine: what a record must say so that others can tell whether its writer is alive."""

import functools
import os
import socket
from pathlib import Path

import psutil


@functools.cache
def this_host() -> str:
    """This boot of this machine and this process namespace: only inside it does a process id mean anything."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    return " ".join(
        [
            socket.gethostname(),
            boot.read_text().strip() if boot.exists() else "",
            os.readlink(namespace) if namespace.is_symlink() else "",
        ]
    )


def process_started(pid: int) -> str | None:
    """When a live process started; None for one that is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            # Ticks since boot. psutil's seconds shift when the wall clock is set, and a live process would
            # look like another one.
            return stat.read_text().rpartition(")")[2].split()[19]
        return str(process.create_time())
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None


def is_dead(host: str, pid: int, started: str) -> bool:
    """Whether a process is known to be gone; of another machine nothing is known."""
    return host == this_host() and process_started(pid) != started
