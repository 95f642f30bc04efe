"""The highest resident size of this process from a moment on."""

from pathlib import Path


def reset_peak() -> float:
    """Resident MB now, from which on the kernel keeps the highest anew: what was before may have taken more."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_mb() -> float:
    """The highest resident MB since."""
    return _status("VmHWM")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{key}:"))
    return value
