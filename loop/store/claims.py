"""Who works on a run: one owner at a time, dead owners are replaced."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psutil

from loop.errors import AlreadyWorking, StoreUnusable
from loop.records import Claim
from loop.store.database import Store, add_missing, now


def this_process() -> tuple[str, int, float]:
    """Host, process id and start time: together they name a process for good."""
    pid = os.getpid()
    return socket.gethostname(), pid, psutil.Process(pid).create_time()


def owner_name() -> str:
    """This process as one word."""
    host, pid, started = this_process()
    return f"{host}:{pid}:{started:.2f}"


def is_alive(host: str, pid: int, started: float) -> bool | None:
    """Whether a process lives; None where it runs on another host and cannot be looked at."""
    if host != socket.gethostname():
        return None
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@contextmanager
def holding(store: Store, run: str, kind: str, key: str, *, lease_seconds: float) -> Iterator[Claim]:
    """Hold a claim for the duration of the block; all writes of the store are guarded by it and prolong its lease.

    Raises:
        AlreadyWorking: a live owner holds it.
    """
    claim = take(store, run, kind, key, lease_seconds=lease_seconds)
    store.claim = claim
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(store, lease_seconds / 3, done), daemon=True)
    heart.start()
    try:
        yield claim
    finally:
        done.set()
        heart.join()
        store.claim = None
        give_back(store, claim)


def take(store: Store, run: str, kind: str, key: str, *, lease_seconds: float) -> Claim:
    """Take a claim that is free, or whose owner is dead or silent for longer than its lease.

    Raises:
        AlreadyWorking: a live owner holds it.
    """
    host, pid, started = this_process()
    nobodys = Claim(
        run=run, kind=kind, key=key, owner="", host="", pid=0, process_started=0.0, lease_until=now(), fence=0
    )
    with store.writing() as session:
        add_missing(session, Claim, **nobodys.model_dump())
        row = session.get_one(Claim, (run, kind, key), with_for_update=True)
        if row.owner and _holds(row):
            raise AlreadyWorking(f"run {run} is being worked on by {_described(row)}; wait for it, or end that process")
        taken = Claim(
            run=run,
            kind=kind,
            key=key,
            owner=owner_name(),
            host=host,
            pid=pid,
            process_started=started,
            lease_seconds=lease_seconds,
            lease_until=now() + timedelta(seconds=lease_seconds),
            fence=row.fence + 1,
        )
        return session.merge(taken)


def give_back(store: Store, claim: Claim) -> None:
    """Free a claim that is still ours."""
    with store.writing() as session:
        row = session.get(Claim, (claim.run, claim.kind, claim.key))
        if row is not None and row.fence == claim.fence:
            row.owner = ""
            session.add(row)


def worker(store: Store, run: str) -> str | None:
    """Which other process carries the run on, in words; None where none does."""
    with store.reading() as session:
        row = session.get(Claim, (run, "run", run))
    working = row is not None and row.owner not in ("", owner_name()) and _holds(row)
    return _described(row) if row is not None and working else None


def _beat(store: Store, seconds: float, done: threading.Event) -> None:
    """Keep the lease alive while long work writes nothing; the next write of the work says what went wrong."""
    while not done.wait(seconds):
        try:
            with store.writing():
                pass
        except AlreadyWorking:
            return
        except StoreUnusable:
            continue


def _described(row: Claim) -> str:
    started = datetime.fromtimestamp(row.process_started, UTC)
    return f"process {row.pid} on {row.host}, started {started:%Y-%m-%d %H:%M:%S} UTC"


def _holds(row: Claim) -> bool:
    """Whether the owner still works: as its process tells, or its lease where that cannot be looked at."""
    alive = is_alive(row.host, row.pid, row.process_started)
    return row.lease_until > now() if alive is None else alive
