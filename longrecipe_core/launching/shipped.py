"""The accelerate configurations that are shipped.

`python -m longrecipe_core.launching.shipped deployments/accelerate` writes them.
"""

import sys
from pathlib import Path

import yaml

from longrecipe_core.launching.configuration import accelerate_config

# In shipped files; given anew on the command line: --main_process_ip, --machine_rank.
MAIN_HOST = "main-machine"
# Name: processes over all machines, machines, cuda.
SHIPPED: dict[str, tuple[int, int, bool]] = {
    "1-gpu.yaml": (1, 1, True),
    "8-gpus.yaml": (8, 1, True),
    "2x8-gpus.yaml": (16, 2, True),
    "cpu.yaml": (1, 1, False),
    "cpu-2.yaml": (2, 1, False),
}


def shipped_text(name: str) -> str:
    """What the shipped file `name` holds."""
    processes, machines, cuda = SHIPPED[name]
    host = MAIN_HOST if machines > 1 else "127.0.0.1"
    lines = ["# Made by `python -m longrecipe_core.launching.shipped`; see docs/launching.md."]
    if not cuda and processes > 1:
        lines.append("# Needs ACCELERATE_USE_CPU=true in the environment.")
    if machines > 1:
        lines.append("# Needs --main_process_ip HOST on all machines, and --machine_rank N on each.")
    config = accelerate_config(processes, machines, cuda, host=host)
    return "\n".join(lines) + "\n" + yaml.safe_dump(config, sort_keys=False)


def main() -> int:
    """Write all shipped files into the directory that is given."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        (directory / name).write_text(shipped_text(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
