"""A process between the flow and the job: when the flow goes, by any signal, the whole job goes (traps, 12 and 17).

`python -m longrecipe_core.launching.supervisor TOKEN COMMAND...` holds the read end of a pipe (its stdin) whose write
end only the parent has. End of file means that the parent is gone. torchrun's workers have sessions of their own and
lose their parent when it dies hard, so the job's processes are told by TOKEN in their environment, not by descent.
"""

import os
import select
import subprocess
import sys

from longrecipe_core.launching.processes import TOKEN_VARIABLE, end_job


def main() -> int:
    """Run the command; return its exit code, or end it when stdin closes."""
    token, command = sys.argv[1], sys.argv[2:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, TOKEN_VARIABLE: token})
    try:
        while child.poll() is None:
            readable, _, _ = select.select([sys.stdin], [], [], 0.5)
            if readable and not os.read(sys.stdin.fileno(), 1):
                return 143
        return child.returncode if child.returncode >= 0 else 128 - child.returncode
    finally:
        # Also after a normal end: a launcher that was killed leaves its ranks behind.
        end_job(token)
        child.wait()


if __name__ == "__main__":
    sys.exit(main())
