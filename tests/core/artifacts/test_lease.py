import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from polling import PATIENCE, wait_until

from longrecipe_core.artifacts import ArtifactStore, Lease, LeaseRecord, exclusive, fingerprint
from longrecipe_core.errors import LeaseLostError, StoreError

KEY = fingerprint("lease")
FOREVER = 10_000.0  # never stale within a test


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    root = str(tmp_path / "root") if request.param == "local" else f"memory://{uuid.uuid4().hex}/store"
    return ArtifactStore(root, cache=tmp_path / "cache")


def path_of(store: ArtifactStore) -> str:
    return f"{store.location.path}/state/{KEY[:16]}/lease.json"


def record_of(store: ArtifactStore) -> dict:
    return json.loads(store.location.fs.cat_file(path_of(store)))


def foreign(store: ArtifactStore, **change: object) -> None:
    """Write the lease of a process on another machine, which never renews it."""
    record = {"schema_version": 1, "fingerprint": KEY, "owner": "elsewhere", "token": "t", "counter": 0}
    record |= {"host": "another machine", "pid": 1, "process_started": "1", "renewed": "", **change}
    fs = store.location.fs
    fs.makedirs(path_of(store).rsplit("/", 1)[0], exist_ok=True)
    exclusive.replace(fs, path_of(store), json.dumps(record).encode())


def test_it_is_renewed_and_released(store: ArtifactStore) -> None:
    with Lease(store, KEY, "me", heartbeat=0.02, stale_after=FOREVER) as lease:
        wait_until(lambda: record_of(store)["counter"] >= 3)
        lease.check()
        assert record_of(store)["owner"] == "me"
    assert record_of(store)["released"]
    with pytest.raises(LeaseLostError, match="not held"):
        lease.check()
    with lease:
        lease.check()


def test_the_second_waits_tells_so_once_and_follows(store: ArtifactStore) -> None:
    told: list[LeaseRecord] = []
    order: list[str] = []
    first = Lease(store, KEY, "first", heartbeat=0.02, stale_after=FOREVER)
    second = Lease(store, KEY, "second", heartbeat=0.02, stale_after=FOREVER, on_wait=told.append)
    first.acquire()

    def wait() -> None:
        second.acquire()
        order.append("second in")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    wait_until(lambda: bool(told))
    counter = record_of(store)["counter"]
    wait_until(lambda: record_of(store)["counter"] > counter + 5)
    order.append("first out")
    first.release()
    thread.join(PATIENCE)
    assert order == ["first out", "second in"]
    assert [one.owner for one in told] == ["first"]
    second.check()
    second.release()


def test_many_at_once_never_work_together(store: ArtifactStore) -> None:
    inside, worst, done = [0], [0], []

    def work() -> None:
        with Lease(store, KEY, heartbeat=0.01, stale_after=FOREVER) as lease:
            inside[0] += 1
            worst[0] = max(worst[0], inside[0])
            time.sleep(0.005)
            lease.check()
            inside[0] -= 1
            done.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE)
    assert (worst[0], len(done)) == (1, 6)


def test_a_stale_lease_of_another_machine_is_taken_over(store: ArtifactStore) -> None:
    foreign(store)
    with Lease(store, KEY, "me", heartbeat=0.02, stale_after=0.3):
        assert record_of(store)["owner"] == "me"


def test_a_lease_that_changes_is_not_stale(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a made-up clock: every look is 10 s later, and 50 times the holder has renewed in between."""
    from longrecipe_core.artifacts import lease as module

    foreign(store)
    clock, beats = [0.0], [0]

    def sleep(_: float) -> None:
        clock[0] += 10
        if beats[0] < 50:
            beats[0] += 1
            foreign(store, counter=beats[0], renewed="a clock that is years off")

    with monkeypatch.context() as patch:
        patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
        lease = Lease(store, KEY, "me", heartbeat=10, stale_after=25)
        lease.acquire()
    assert (beats[0], clock[0]) == (50, 530)  # 30 s is the first look later than 25 s after the last change
    lease.release()


def test_unreadable_leases_are_taken_over_when_stale(store: ArtifactStore) -> None:
    foreign(store)
    store.location.fs.pipe_file(path_of(store), b"{")
    with Lease(store, KEY, "me", heartbeat=0.02, stale_after=0.3):
        assert record_of(store)["owner"] == "me"


def test_a_lost_lease_raises_and_is_left_to_the_other(store: ArtifactStore) -> None:
    lease = Lease(store, KEY, "me", heartbeat=0.02, stale_after=FOREVER)
    lease.acquire()
    # As another run would: under the backend's own guard, so no heartbeat is half-way.
    taken = json.dumps(record_of(store) | {"owner": "elsewhere", "token": "t", "host": "x"}).encode()
    fs = store.location.fs
    wait_until(lambda: exclusive.swap(fs, path_of(store), exclusive.read_if_present(fs, path_of(store)) or b"", taken))

    def lost() -> bool:
        try:
            lease.check()
        except LeaseLostError as error:
            return "taken over by elsewhere" in str(error)
        return False

    wait_until(lost)
    lease.release()
    assert record_of(store)["owner"] == "elsewhere"


def test_a_lease_that_somebody_tidied_up_is_written_again(store: ArtifactStore) -> None:
    with Lease(store, KEY, "me", heartbeat=0.02, stale_after=FOREVER) as lease:
        with exclusive._MEMORY_LOCK:
            store.location.fs.rm_file(path_of(store))
        wait_until(lambda: store.location.fs.exists(path_of(store)))
        lease.check()


def test_a_store_out_of_reach_is_no_loss(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from longrecipe_core.artifacts import lease as module

    calls: list[int] = []

    def broken(*_: object) -> bool:
        calls.append(1)
        raise OSError("network down")

    with Lease(store, KEY, "me", heartbeat=0.02, stale_after=FOREVER) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(module, "swap", broken)
            wait_until(lambda: len(calls) >= 3)
            lease.check()
        counter = record_of(store)["counter"]
        wait_until(lambda: record_of(store)["counter"] > counter)


def test_impossible_periods_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(StoreError, match="below stale_after"):
        Lease(store, KEY, heartbeat=10, stale_after=5)


HOLDER = """
import sys, time
from longrecipe_core.artifacts import ArtifactStore, Lease
lease = Lease(ArtifactStore(sys.argv[1]), sys.argv[2], "holder", heartbeat=0.05, stale_after=10000)
lease.acquire()
print("held", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("reap", [True, False], ids=["gone", "zombie"])
def test_a_killed_holder_on_this_machine_is_followed_at_once(reap: bool, tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "root"), cache=tmp_path / "cache")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, store.root, KEY], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiting = threading.Event()
        lease = Lease(store, KEY, "me", heartbeat=0.05, stale_after=FOREVER, on_wait=lambda _: waiting.set())
        thread = threading.Thread(target=lease.acquire, daemon=True)
        thread.start()
        assert waiting.wait(PATIENCE)
        holder.kill()
        if reap:
            holder.wait()
        thread.join(PATIENCE)
        assert record_of(store)["owner"] == "me"
        lease.release()
    finally:
        holder.kill()
        holder.wait()


def test_a_reused_process_id_is_not_the_holder(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "root"), cache=tmp_path / "cache")
    with Lease(store, KEY, heartbeat=1000, stale_after=FOREVER):
        mine = record_of(store)
    foreign(store, host=mine["host"], pid=mine["pid"], process_started="1")
    with Lease(store, KEY, "me", heartbeat=0.02, stale_after=FOREVER):
        assert record_of(store)["owner"] == "me"
