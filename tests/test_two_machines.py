"""Two machines on one PostgreSQL: nothing is done twice, and nobody fails for coming at the same moment."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest
from rich.console import Console
from sqlalchemy import create_engine, make_url, text

from benchmarks import postgres
from connectors import sources
from connectors.progress import RichProgress
from connectors.wiring import Project
from loop.errors import AlreadyWorking, StoreUnusable
from loop.records import Contamination, Split
from loop.store import claims, contamination, items, reviews, rounds, server
from loop.store.database import Store
from tests.builders import NOON, an_item
from tests.tiny import tiny_project

MACHINE = """
import socket, sys
host = sys.argv.pop(1)
socket.gethostname = lambda: host
from connectors.cli import main
main()
"""


@pytest.fixture
def address(postgresql: str, request: pytest.FixtureRequest) -> str:
    """An empty database on the server."""
    return postgres.new_database(postgresql, f"two_{abs(hash(request.node.nodeid))}")


@pytest.fixture
def both(address: str) -> Iterator[tuple[Store, Store]]:
    """The same database as two machines have it."""
    with closing(Store(address)) as one, closing(Store(address)) as other:
        one.migrate()
        yield one, other


def at_once(act: Callable[[Store], object], both: tuple[Store, Store]) -> list[object]:
    """What each of two machines gets that do the same at the same moment; an error counts as an answer."""
    meeting = Barrier(2, timeout=20)

    def one(store: Store) -> object:
        meeting.wait()
        try:
            return act(store)
        except AlreadyWorking as error:
            return type(error)

    with ThreadPoolExecutor(2) as pool:
        return [each.result() for each in [pool.submit(one, store) for store in both]]


def test_of_two_that_take_a_new_run_at_once_one_gets_it(both: tuple[Store, Store]) -> None:
    def take(name: str, store: Store) -> int:
        return claims.take(store, name, "run", name, lease_seconds=60).fence

    for number in range(20):
        assert sorted(at_once(partial(take, f"run {number}"), both), key=str) == [1, AlreadyWorking]


def test_two_that_ingest_the_same_items_at_once_store_each_once(both: tuple[Store, Store]) -> None:
    def add(number: int, store: Store) -> int:
        return items.add(store, [an_item(f"{number}/{each}") for each in range(50)])

    for number in range(10):
        assert sorted(at_once(partial(add, number), both), key=str) == [0, 50]


def test_what_two_note_at_once_is_there_once(both: tuple[Store, Store]) -> None:
    def look(number: int, store: Store) -> None:
        row = Contamination(digest=str(number), similarity=0.9, pool=1, holdout=1, pairs={}, looked_at=NOON)
        contamination.keep(store, row)

    def list_tasks(number: int, store: Store) -> None:
        reviews.RunReviewBook(store, "x").mark_listed("board", str(number), again=NOON)

    def open_round(number: int, store: Store) -> None:
        rounds.open_round(store, f"{number} of {store is both[0]}", {"seed": number})

    for number in range(10):
        for act in (look, list_tasks, open_round):
            at_once(partial(act, number), both)


@pytest.mark.slow
def test_two_machines_that_run_the_same_campaign_ask_score_and_pay_once(address: str, tmp_path: Path) -> None:
    config = tiny_project(tmp_path, rounds=1, sums=6)
    told = config.read_text(encoding="utf-8").replace('name = "tiny"\n', f'name = "tiny"\ndatabase = "{address}"\n')
    config.write_text(told, encoding="utf-8")
    here = Project(config, RichProgress(Console(quiet=True)))
    pool, task = here.config.pool, here.config.task
    with closing(here.store) as store:
        for split in (Split.HOLDOUT, Split.POOL):
            sources.ingest(
                [tmp_path / f"{split}.jsonl"], store, split=split, pool=pool, task=task, progress=here.progress
            )
    running = [machine(host, "run", config=config) for host in ("a", "b")]
    said = {host: run.communicate(timeout=200)[0] for host, run in zip("ab", running, strict=True)}
    codes = {host: run.returncode for host, run in zip("ab", running, strict=True)}
    assert sorted(codes.values()) == [0, 1], said
    [(winner, _), (loser, _)] = sorted(codes.items(), key=lambda each: each[1])
    assert f"is being worked on by process {running['ab'.index(winner)].pid} on {winner}" in said[loser]
    assert set(found(address, "SELECT item_key, sample FROM reply").values()) == {1}
    assert set(found(address, "SELECT purpose FROM charge WHERE currency = 'USD'").values()) == {1}
    assert found(address, "SELECT number, stage::text FROM round") == {(1, "CLOSED"): 1}
    assert found(address, "SELECT DISTINCT reserved FROM balance WHERE currency = 'USD'") == {(0,): 1}


def machine(host: str, *words: str, config: Path) -> subprocess.Popen[str]:
    """A command on a machine of that name."""
    command = [sys.executable, "-c", MACHINE, host, *words, "--config", str(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def found(address: str, query: str) -> Counter[tuple[object, ...]]:
    """How often each row is in the answer."""
    engine = create_engine(address)
    with engine.connect() as connection:
        rows = Counter(tuple(row) for row in connection.execute(text(query)))
    engine.dispose()
    return rows


@pytest.mark.parametrize(("setting", "cure"), [
    ("default_transaction_isolation = 'serializable'", "SET default_transaction_isolation = 'read committed'"),
    ("default_transaction_read_only = on", "name the primary server"),
])  # fmt: skip
def test_a_database_that_is_set_up_otherwise_is_named_with_the_cure(setting: str, cure: str, address: str) -> None:
    name = make_url(address).database
    with closing(Store(address)) as store:
        store.migrate()
        assert server.described(store).startswith("PostgreSQL 1")
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" SET {setting}'))
    engine.dispose()
    with closing(Store(address)) as store, pytest.raises(StoreUnusable, match=cure):
        server.described(store)


def test_a_database_that_cannot_hold_every_text_is_named(postgresql: str) -> None:
    address = postgres.new_database(
        postgresql, "narrow", "TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
    )
    with closing(Store(address)) as store, pytest.raises(StoreUnusable, match=r"is in LATIN1.*ENCODING 'UTF8'"):
        server.described(store)


def test_an_old_server_is_named(both: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OLDEST", 99)
    with pytest.raises(StoreUnusable, match="is too old; upgrade the server to 99"):
        server.described(both[0])
