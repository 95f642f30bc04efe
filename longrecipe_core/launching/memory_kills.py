"""How many processes the kernel has killed for memory: told before and after, whether a job was among them."""

from pathlib import Path

VERSION_2, VERSION_1 = "memory.events", "memory.oom_control"


def memory_kills(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Kills in the control group of this process, which its children share; where it has none, on the machine.

    None where the system tells nothing. Arguments: where the two file systems are mounted.
    """
    for path in (*_control_groups(proc / "self" / "cgroup", cgroups), proc / "vmstat"):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdecimal():
                return int(value)
    return None


def _control_groups(table: Path, cgroups: Path) -> list[Path]:
    """Files that may count the kills, by the lines `number:controllers:path` of /proc/self/cgroup."""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            found.append(cgroups / path.lstrip("/") / VERSION_2)
        elif "memory" in controllers.split(","):
            found.append(cgroups / "memory" / path.lstrip("/") / VERSION_1)
    return found
