"""A lease with a heartbeat: of several runs of one stage, one trains and the others wait."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from longrecipe_core.artifacts.exclusive import create_exclusively, read_if_present, swap
from longrecipe_core.artifacts.manifest import dump_record, load_record, utc_now
from longrecipe_core.artifacts.processes import is_dead, process_started, this_host
from longrecipe_core.artifacts.store import STATE, ArtifactStore, fingerprint_directory
from longrecipe_core.errors import ArtifactDamagedError, LeaseLostError, StoreError

logger = logging.getLogger(__name__)

LEASE = "lease.json"


class LeaseRecord(BaseModel):
    """The content of `lease.json`. `token` is one holder's, `counter` grows with each heartbeat."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    fingerprint: str
    owner: str
    token: str
    counter: int
    host: str
    pid: int
    process_started: str
    renewed: str
    released: bool = False


class Lease:
    """The right to work on one fingerprint's training state; a context manager that waits, then renews.

    A thread renews the record every `heartbeat` seconds. A waiter takes over when the holder's process on
    this very machine is dead, or when it has watched an unchanged record for `stale_after` seconds of its
    own clock (clocks of two machines differ, so no time in the record is compared). When the wait is over
    the artifact may be there: look into the store again before working.
    """

    def __init__(
        self,
        store: ArtifactStore,
        fingerprint: str,
        owner: str | None = None,
        *,
        heartbeat: float = 10.0,
        stale_after: float = 60.0,
        on_wait: Callable[[LeaseRecord], None] | None = None,
    ) -> None:
        """`on_wait` is called once per holder that is waited for; by default one line is logged."""
        if not 0 < heartbeat < stale_after:
            raise StoreError(f"heartbeat {heartbeat} s must be positive and below stale_after {stale_after} s")
        self.fingerprint = fingerprint
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}"
        self.heartbeat, self.stale_after = heartbeat, stale_after
        self._on_wait = on_wait or self._log_wait
        self._place = store.location / STATE / fingerprint_directory(fingerprint)
        self._fs, self._path = store.location.fs, (self._place / LEASE).path
        self._lock = threading.Lock()  # guards _record, _bytes and _lost between heartbeats and callers
        self._record: LeaseRecord | None = None
        self._bytes = b""
        self._lost: str | None = None
        self._renewed = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Block until the lease is ours, then start the heartbeat; with `wait` false, return False if it is held."""
        if self._place.local:
            os.makedirs(self._place.path, exist_ok=True)
        watched: bytes | None = None
        since = time.monotonic()
        told = None
        while True:
            present = read_if_present(self._fs, self._path)
            if present is None:
                if self._take(None):
                    break
                continue
            if present != watched:
                watched, since = present, time.monotonic()
            holder = self._read(present)
            free = holder is not None and (holder.released or is_dead(holder.host, holder.pid, holder.process_started))
            if (free or time.monotonic() - since > self.stale_after) and self._take(present):
                if holder is not None and not holder.released:
                    logger.warning("%s: lease taken over from %s", self._place.uri, holder.owner)
                break
            if not wait:
                return False
            if holder is not None and not free and holder.token != told:
                told = holder.token
                self._on_wait(holder)
            time.sleep(min(self.heartbeat / 2, 5.0))
        self._renewed = time.monotonic()
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._thread.start()
        return True

    def check(self) -> None:
        """Raises LeaseLostError when another run has taken over.

        An unreachable store alone is no loss. When no heartbeat has got through for as long as it takes others to think
        this holder dead, the record itself is looked at, which then raises what the store does.
        """
        if self._record is not None and time.monotonic() - self._renewed > self.stale_after:
            self._renew()
        with self._lock:
            if self._record is None and self._lost is None:
                raise LeaseLostError(f"{self._place.uri}: the lease is not held: acquire it first")
            if self._lost is not None:
                raise LeaseLostError(f"{self._place.uri}: {self._lost}; stop here, its result will be used")

    def release(self) -> None:
        """Stop the heartbeat and let the next one in at once. Does nothing when not held or lost."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            record, self._record = self._record, None
            lost, self._lost = self._lost, None
            if record is None or lost is not None:
                return
            # Not deleted: replacing one's own record can be made conditional on every backend, deleting
            # can't.
            done = record.model_copy(update={"released": True, "counter": record.counter + 1, "renewed": utc_now()})
            swap(self._fs, self._path, self._bytes, dump_record(done))

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except Exception as failure:  # noqa: BLE001 - see _beat
            # Waiters take over once it is stale; an error here would hide the stage's own.
            logger.warning("%s: the lease could not be released: %s", self._place.uri, failure)

    def _take(self, present: bytes | None) -> bool:
        record = LeaseRecord(
            fingerprint=self.fingerprint,
            owner=self.owner,
            token=uuid.uuid4().hex,
            counter=0,
            host=this_host(),
            pid=os.getpid(),
            process_started=process_started(os.getpid()) or "",
            renewed=utc_now(),
        )
        data = dump_record(record)
        if present is None:
            won = create_exclusively(self._fs, self._path, data)
        else:
            won = swap(self._fs, self._path, present, data)
        if won:
            with self._lock:
                self._record, self._bytes, self._lost = record, data, None
        return won

    def _read(self, data: bytes) -> LeaseRecord | None:
        try:
            record = load_record(LeaseRecord, data, (self._place / LEASE).uri)
        except ArtifactDamagedError:
            return None  # held by nobody we can name: free once it is stale
        if record.fingerprint != self.fingerprint:
            raise StoreError(
                f"{self._place.uri} is leased for {record.fingerprint}, whose first 16 digits are those "
                f"of {self.fingerprint}: use another store for one of the two"
            )
        return record

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat):
            try:
                self._renew()
                self._renewed = time.monotonic()
            except Exception as error:  # noqa: BLE001 - clients of object stores raise their own; the next beat tries again
                logger.warning("%s: heartbeat failed, trying again: %s", self._place.uri, error)
            if self._lost is not None:
                logger.error("%s: %s", self._place.uri, self._lost)
                return

    def _renew(self) -> None:
        with self._lock:
            if self._record is None:
                return
            record = self._record.model_copy(update={"counter": self._record.counter + 1, "renewed": utc_now()})
            data = dump_record(record)
            if swap(self._fs, self._path, self._bytes, data):
                self._record, self._bytes = record, data
                return
            present = read_if_present(self._fs, self._path)
            if present is None:
                if create_exclusively(self._fs, self._path, data):  # somebody tidied up; nobody took over
                    self._record, self._bytes = record, data
                    return
                present = read_if_present(self._fs, self._path) or b"{}"
            holder = self._read(present)
            if holder is not None and holder.token == record.token:
                self._record, self._bytes = holder, present  # an earlier renewal did arrive after all
                return
            self._lost = f"the lease was taken over by {holder.owner if holder else 'an unknown run'}"

    def _log_wait(self, holder: LeaseRecord) -> None:
        logger.info(
            "%s: %s works on this already (since its last sign at %s); waiting for it",
            self._place.uri,
            holder.owner,
            holder.renewed,
        )


def read_lease(store: ArtifactStore, key: str) -> LeaseRecord | None:
    """The lease of the stage whose fingerprint begins with `key`, or None where there is none that can be read."""
    path = store.location / STATE / key / LEASE
    data = read_if_present(path.fs, path.path)
    try:
        return None if data is None else load_record(LeaseRecord, data, path.uri)
    except ArtifactDamagedError:
        return None
