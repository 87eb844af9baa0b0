"""The ledger under load: operations a second with 1, 8 and 64 processes on SQLite and PostgreSQL, and overspending.

An operation is a hold, a settlement or a refusal, each a durable transaction on the counters of run, domain and round.
The processes share out a number of calls of which the budget admits four in five, so the cap is reached while all work.
The figures are those of 8 processes; the others stand beside them.

Run as `python -m benchmarks.ledger --json FILE [--quick] [--seeds N]`.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import postgres
from benchmarks.kept import figure, write
from loop.errors import BudgetSpent
from loop.records import Currency, Item, Split
from loop.store import items
from loop.store.asking import RoundAskBook
from loop.store.database import Store
from loop.store.money import Purse

WORKERS = (1, 8, 64)
MAIN = 8
PRICE = 7
ADMITTED = 0.8
SOURCES = ["benchmarks/ledger.py", "loop/store/database.py", "loop/store/money.py"]
Row = dict[str, Any]


def main() -> None:
    """Measure each database with each number of processes, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, help="not used")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls, once")
    parser.add_argument("--seeds", type=int, default=5, help="repetitions")
    chosen = parser.parse_args()
    calls, seeds = (192, 1) if chosen.quick else (1920, chosen.seeds)
    with databases() as addresses:
        cells = [
            measured(name, address, workers, calls, f"{workers}-{seed}")
            for name, address in addresses.items()
            for workers in WORKERS
            for seed in range(seeds)
        ]
    figures = {}
    for name in addresses:
        for workers in WORKERS:
            rates = [each["ops_per_second"] for each in cells if (each["database"], each["workers"]) == (name, workers)]
            figures[f"ops_per_second.{name}" + ("" if workers == MAIN else f".{workers}")] = mean(rates)
    over = max(each["overspend"] for each in cells)
    figures["overspend_microdollars"] = figure(over, over, over, "micro-dollars")
    print_table(cells)
    if chosen.json:
        settings = {"calls": calls, "repetitions": seeds, "admitted": ADMITTED, "workers": list(WORKERS)}
        write(chosen.json, "ledger", settings=settings, figures=figures, sources=SOURCES, cells=cells)


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """An empty SQLite file and an empty PostgreSQL database; both write every commit to the disk."""
    with tempfile.TemporaryDirectory() as folder, postgres.cluster() as address:
        yield {"sqlite": f"sqlite:///{folder}/store.db", "postgresql": postgres.new_database(address, "ledger")}


def measured(name: str, address: str, workers: int, calls: int, run: str) -> Row:
    """One measurement in a run of its own."""
    store = Store(address)
    store.migrate()
    items.add(store, [Item(key="q", question="?", domain="algebra", split=Split.POOL, text_hash="q")])
    limit = int(calls * ADMITTED) * PRICE
    Purse(store, run).open(limit, 0)
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["benchmarks.ledger"])
    start, results = forked.Barrier(workers + 1), forked.Queue()
    processes = [
        forked.Process(target=work, args=(address, run, calls // workers, start, results), daemon=True)
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    start.wait(300)
    began = time.monotonic()
    operations = sum(results.get() for _ in processes)
    seconds = time.monotonic() - began
    for process in processes:
        process.join()
    spent = Purse(store, run).balances()[Currency.USD].spent
    store.close()
    assert spent == limit, "the budget was not used up"
    return {
        "database": name,
        "workers": workers,
        "operations": operations,
        "ops_per_second": operations / seconds,
        "overspend": max(0, spent - limit),
    }


def work(address: str, run: str, calls: int, start: Barrier, results: Any) -> None:
    """Make so many calls, each reserved and settled; how many operations that took."""
    store = Store(address)
    book, operations = RoundAskBook(store, run, 1), 0
    with store.reading():
        pass
    start.wait()
    for call in range(calls):
        operations += 1
        try:
            charge = book.reserve(f"ask/1/q/{call}/0", PRICE, item_key="q")
        except BudgetSpent:
            continue
        book.settle(charge, PRICE)
        operations += 1
    results.put(operations)


def mean(rates: list[float]) -> Row:
    """The mean over repetitions with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(rates, (10_000, len(rates))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return figure(float(np.mean(rates)), float(low), float(high), "operations a second")


def print_table(cells: list[Row]) -> None:
    """All measurements."""
    table = Table("database", "processes", "operations", "a second", "overspent")
    for each in cells:
        rate = f"{each['ops_per_second']:.0f}"
        table.add_row(each["database"], str(each["workers"]), str(each["operations"]), rate, str(each["overspend"]))
    Console().print(table)


if __name__ == "__main__":
    main()
