"""One process works on a run at a time; the dead are replaced at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from loop.errors import AlreadyWorking
from loop.records import Claim, Item, Split
from loop.store import claims, items
from loop.store.database import Store, now

HOLDER = """
import sys, time
from loop.store import claims
from loop.store.database import Store

with claims.holding(Store(sys.argv[1]), "demo", "run", "demo", lease_seconds=3600):
    print("holding", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def other(store: Store) -> Iterator[Store]:
    """The same database as another process has it."""
    opened = Store(store.url)
    yield opened
    opened.close()


@pytest.fixture
def holder(store: Store) -> Iterator[subprocess.Popen[str]]:
    """A real process that holds the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, store.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "holding\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def take(store: Store, *, lease_seconds: float = 3600) -> Claim:
    return claims.take(store, "demo", "run", "demo", lease_seconds=lease_seconds)


def row(store: Store) -> Claim:
    with store.reading() as session:
        return session.get_one(Claim, ("demo", "run", "demo"))


def change(store: Store, **values: object) -> None:
    """Make the stored claim look like somebody else's."""
    with store.writing() as session:
        claim = session.get_one(Claim, ("demo", "run", "demo"))
        for name, value in values.items():
            setattr(claim, name, value)


def an_item(key: str) -> Item:
    return Item(key=key, question=f"What is {key}?", split=Split.POOL, text_hash=key)


def test_a_second_process_is_told_who_works_and_since_when(store: Store, holder: subprocess.Popen[str]) -> None:
    since = r"started \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    with pytest.raises(AlreadyWorking, match=f"process {holder.pid} on {socket.gethostname()}, {since}"):
        take(store)


def test_a_killed_owner_is_replaced_at_once(store: Store, holder: subprocess.Popen[str]) -> None:
    held = row(store)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    taken = take(store)
    assert (taken.pid, taken.fence) == (os.getpid(), held.fence + 1)


def test_a_killed_owner_that_nobody_waited_for_is_replaced_too(store: Store, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while claims.is_alive(socket.gethostname(), holder.pid, row(store).process_started):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert take(store).pid == os.getpid()


def test_a_process_that_got_the_number_of_a_dead_one_is_not_its_owner(store: Store) -> None:
    take(store)
    change(store, pid=os.getppid(), process_started=1.0)
    assert take(store).fence == 2


def test_an_owner_on_another_host_is_believed_until_its_lease_ends(store: Store) -> None:
    take(store)
    change(store, host="elsewhere", lease_until=now() + timedelta(seconds=60))
    with pytest.raises(AlreadyWorking, match="elsewhere"):
        take(store)
    change(store, lease_until=now() - timedelta(seconds=1))
    assert take(store).fence == 2


def test_an_owner_whose_clock_was_set_back_keeps_its_lease_alive(store: Store) -> None:
    with claims.holding(store, "demo", "run", "demo", lease_seconds=60):
        change(store, lease_until=now() + timedelta(hours=1))
        items.add(store, [an_item("q1")])
        assert (
            timedelta(seconds=50) < row(store).lease_until.replace(tzinfo=now().tzinfo) - now() <= timedelta(seconds=60)
        )


def test_another_run_is_free(store: Store, holder: subprocess.Popen[str]) -> None:
    assert claims.take(store, "another", "run", "another", lease_seconds=60).fence == 1


def test_a_finished_owner_leaves_the_run_free(store: Store, other: Store) -> None:
    with (
        claims.holding(store, "demo", "run", "demo", lease_seconds=60),
        pytest.raises(AlreadyWorking, match=f"process {os.getpid()}"),
    ):
        take(other)
    assert store.claim is None
    assert take(other).fence == 2


def test_a_failed_owner_leaves_the_run_free(store: Store, other: Store) -> None:
    with pytest.raises(KeyError), claims.holding(store, "demo", "run", "demo", lease_seconds=60):
        raise KeyError
    assert take(other).fence == 2


def test_who_lost_the_run_writes_nothing_more(store: Store, other: Store) -> None:
    with claims.holding(store, "demo", "run", "demo", lease_seconds=60):
        items.add(store, [an_item("before")])
        change(other, host="elsewhere", lease_until=now() - timedelta(seconds=1))
        taken = take(other)
        with pytest.raises(AlreadyWorking, match="taken over by"):
            items.add(store, [an_item("after")])
    assert set(items.existing(other, ["before", "after"])) == {"before"}
    assert (row(other).owner, row(other).fence) == (taken.owner, taken.fence)


def test_long_silent_work_keeps_its_lease(store: Store, other: Store) -> None:
    with claims.holding(store, "demo", "run", "demo", lease_seconds=0.6) as claim:
        time.sleep(1.5)
        kept = row(other)
        assert kept.lease_until > claim.lease_until
        assert kept.fence == claim.fence


def test_every_write_prolongs_a_lease_that_is_half_gone(store: Store, other: Store) -> None:
    with claims.holding(store, "demo", "run", "demo", lease_seconds=3600):
        change(other, lease_until=now() + timedelta(seconds=100))
        items.add(store, [an_item("a")])
        assert row(other).lease_until > now() + timedelta(seconds=3500)
