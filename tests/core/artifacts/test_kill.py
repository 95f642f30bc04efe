"""Kill the writer at any point: readers see nothing or all, and the next writer succeeds.

A driver process forks one writer per point; the writer kills itself (SIGKILL) just before its k-th line of
our code, for every k from the first to the last.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = r'''
import json, os, shutil, signal, sys
from pathlib import Path
import longrecipe_core.artifacts as package
from longrecipe_core.artifacts import ArtifactStore, TrainingState, fingerprint

HOME = os.path.dirname(package.__file__)
FILES = {"a.bin": b"a" * 3000, "deep/b.bin": b"b" * 10}
KEY = fingerprint("x")
mode, base = sys.argv[1], Path(sys.argv[2])
# What starts git or asks the packages' metadata has nothing to do with the store and is cached.
package.manifest.source_commit()
package.manifest.installed_versions()

os.fsync = lambda descriptor: None  # a kill loses nothing that was written; only a power cut would


def staging(directory, extra=b""):
    for name, data in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + extra)
    return directory


def content(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def write(root, source):
    store = ArtifactStore(root, root.parent / "cache")
    if mode == "state":
        TrainingState(store, KEY).save(2, source, keep=1)
    else:
        store.commit("tokens", KEY, source, recipe={"a": 1}, seconds=0, consume=mode == "consume")


def killed_at(k, root, source):
    """Fork a writer that dies before its k-th line. Returns whether it died."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def trace(frame, event, argument):
            nonlocal count
            if not frame.f_code.co_filename.startswith(HOME):
                return None
            if event == "line":
                count += 1
                if count == k:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        write(root, source)
        sys.settrace(None)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0
    return False


seen = {"nothing": 0, "all": 0}
k = 0
while True:
    k += 1
    work = base / "work"
    shutil.rmtree(work, ignore_errors=True)
    root, source = work / "root", staging(work / "staging")
    store = ArtifactStore(root, work / "cache")
    if mode == "state":
        state = TrainingState(store, KEY)
        state.save(1, staging(work / "first"))
        state.save(2, staging(work / "older", b"older"))
    died = killed_at(k, root, source)
    if mode == "state":
        steps = state.steps()
        assert 2 in steps, (k, steps)
        for step in steps:
            state.load(step, work / f"loaded-{step}")
        loaded = content(work / "loaded-2")
        older = {name: data + b"older" for name, data in FILES.items()}
        assert loaded in (FILES, older), k
        seen["all" if loaded == FILES else "nothing"] += 1
        state.save(2, staging(work / "again"), keep=1)
        assert state.steps() == [2], k
        state.load(2, work / "last")
        assert content(work / "last") == FILES, k
    else:
        manifest = store.find("tokens", KEY)
        seen["nothing" if manifest is None else "all"] += 1
        if manifest is not None:
            assert content(store.fetch(store.ref(manifest))) == FILES, k
        ref = store.commit("tokens", KEY, staging(work / "again"), recipe={"a": 1}, seconds=0)
        assert content(store.fetch(ref)) == FILES, k
        assert manifest is None or store.ref(manifest) == ref, k
    if not died:
        break
print(json.dumps({"points": k, **seen}))
'''


@pytest.mark.parametrize("mode", ["copy", "consume", "state"])
def test_kill_at_every_line(mode: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, mode, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["points"] > 100
    assert min(seen["nothing"], seen["all"]) > 0
