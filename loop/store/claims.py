"""Who works on a run: one owner at a time, dead owners are replaced."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psutil

from loop.errors import AlreadyWorking
from loop.records import Claim
from loop.store.database import Store, now


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


@contextmanager
def holding(store: Store, run: str, kind: str, key: str, *, lease_seconds: float) -> Iterator[Claim]:
    """Hold a claim for the duration of the block; all writes of the store are guarded by it.

    Raises:
        AlreadyWorking: a live owner holds it.
    """
    claim = take(store, run, kind, key, lease_seconds=lease_seconds)
    store.claim = claim
    try:
        yield claim
    finally:
        store.claim = None
        give_back(store, claim)


def take(store: Store, run: str, kind: str, key: str, *, lease_seconds: float) -> Claim:
    """Take a claim that is free, or whose owner is dead or silent for longer than its lease.

    Raises:
        AlreadyWorking: a live owner holds it.
    """
    host, pid, started = this_process()
    with store.writing() as session:
        row = session.get(Claim, (run, kind, key))
        if row is not None and row.owner and _holds(row):
            raise AlreadyWorking(
                f"run {run} is being worked on by process {row.pid} on {row.host}; wait for it, or end that process"
            )
        row = row or Claim(run=run, kind=kind, key=key, owner="", host="", pid=0, process_started=0.0, fence=0)
        row.owner, row.host, row.pid, row.process_started = owner_name(), host, pid, started
        row.lease_seconds = lease_seconds
        row.lease_until = now() + timedelta(seconds=lease_seconds)
        row.fence += 1
        session.add(row)
        session.flush()
        return Claim.model_validate(row.model_dump())


def give_back(store: Store, claim: Claim) -> None:
    """Free a claim that is still ours."""
    with store.writing() as session:
        row = session.get(Claim, (claim.run, claim.kind, claim.key))
        if row is not None and row.fence == claim.fence:
            row.owner = ""
            session.add(row)


def _holds(row: Claim) -> bool:
    alive = is_alive(row.host, row.pid, row.process_started)
    return row.lease_until > now() if alive is None else alive
