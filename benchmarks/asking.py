"""Asking at an endpoint's limit: the share of the allowed rate that is reached, and money under 1,000 random faults.

At the limit: a recorded teacher on loopback lets R requests a minute pass, and of these refuses one in 50 (429), fails
one in 97 (500) and leaves one in 103 unanswered until the time-out. The rate counts what passed its limit while more
requests were left than go at once. Beside it a
plain `asyncio.gather` over the SDK's own retries (8 instead of its 2, or most items would be lost) asks the same items.
They take turns, five times a minute each.

Random runs: an endpoint in the process with the same faults at random, replies of random length, now and then without
usage or far beyond the learned hold, a budget from a tenth to one and a half times the cost, and in half of the runs an
interruption, after which the run is taken up again. Each must end with not a micro-dollar above its cap, no reply paid
twice, and every item either answered or given up because the budget was spent.

Run as `python -m benchmarks.asking --json FILE [--quick] [--seeds N]`.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table
from sqlmodel import select

from benchmarks.kept import figure, write
from connectors.openai_teacher import OpenAITeacher
from connectors.recorded_teacher import Fault, Limit, RecordedTeacher, Recording, running
from loop.config import Config, TaskConfig, TeacherConfig
from loop.errors import TeacherBusy, TeacherDown
from loop.ports import Completion, Request, Silent
from loop.records import Charge, ChargeState, Currency, Item, Query, Reply, Split, Stage
from loop.store import asking, items, rounds
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.ask import ask
from loop.teacher.prompt import request_for
from loop.teacher.send import Sleep

RATE = 600
TIMEOUT = 2.0
CONCURRENCY = 32
ITEMS = 60
"""Of a random run."""
PROCESSES = 8
"""Share out the random runs, which wait for the disk most of the time."""
TASK = TaskConfig()
FAULTS = (
    Fault(kind="429", every=50, times=10**9, seconds=1.0),
    Fault(kind="500", every=97, times=10**9),
    Fault(kind="slow", every=103, times=10**9, seconds=2 * TIMEOUT),
)
SOURCES = [
    "benchmarks/asking.py",
    "connectors/openai_teacher.py",
    "loop/ledger.py",
    "loop/store/database.py",
    "loop/store/money.py",
    "loop/store/pace.py",
    "loop/teacher/clerk.py",
    "loop/teacher/send.py",
    "loop/teacher/width.py",
]
Row = dict[str, Any]


def main() -> None:
    """Ask at the limit, do the random runs, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, help="not used")
    parser.add_argument("--quick", action="store_true", help="three times 20 seconds at the limit, 40 random runs")
    parser.add_argument("--seeds", type=int, default=1000, help="random runs")
    chosen = parser.parse_args()
    times, n, runs = (3, RATE // 3, 40) if chosen.quick else (5, RATE, chosen.seeds)
    with tempfile.TemporaryDirectory() as folder:
        cells = [
            cell
            for number in range(times)
            for cell in (ours_at_the_limit(Path(folder) / f"limit{number}.db", n), gathered_at_the_limit(n))
        ]
        cells += random_runs(Path(folder), runs)
    print_table(cells)
    if chosen.json:
        keep(chosen.json, cells, n)


def keep(file: Path, cells: list[Row], n: int) -> None:
    """Write the figures."""
    ours, gather, chance = (of_way(cells, way) for way in ("ours", "gather", "random"))
    figures = {"rate_share": shared(ours), "rate_share_gather": shared(gather)}
    for name, unit in (("overspend_microdollars", "micro-dollars"), ("paid_twice", "replies"), ("lost", "items")):
        worst = max(each[name] for each in ours + chance)
        figures[name] = figure(worst, worst, worst, unit)
    lost = [each["lost"] for each in gather]
    figures["lost_gather"] = figure(float(np.mean(lost)), min(lost), max(lost), f"of {n} items")
    settings = {
        "rate": RATE, "times_at_the_limit": len(ours), "items": n, "concurrency": CONCURRENCY,
        "random_runs": len(chance),
        "notes": ["what the plain gather loses is not in its share, which is of the requests that passed"],
    }  # fmt: skip
    write(file, "asking", settings=settings, figures=figures, sources=SOURCES, cells=cells)


def of_way(cells: Sequence[Row], way: str) -> list[Row]:
    """The cells of one way of asking."""
    return [each for each in cells if each["way"] == way]


def shared(cells: Sequence[Row]) -> Row:
    """The mean share of the allowed rate with its 95 % bootstrap interval over the times."""
    shares = [each["share"] for each in cells]
    low, high = np.quantile(np.random.default_rng(0).choice(shares, (10_000, len(shares))).mean(axis=1), [0.025, 0.975])
    return figure(float(np.mean(shares)), float(low), float(high), "of the allowed rate")


def a_store(file: Path, n: int) -> Store:
    """A store with so many items."""
    store = Store(f"sqlite:///{file}")
    store.migrate()
    items.add(store, some_items(n))
    return store


def some_items(n: int) -> list[Item]:
    """Items in two domains."""
    return [
        Item(key=f"q{k}", question=f"What is {k} + {k}?", domain=f"d{k % 2}", split=Split.POOL, text_hash=f"{k}")
        for k in range(n)
    ]


def a_round(store: Store, run: str, n: int, budget: int) -> int:
    """A round that asks for so many items."""
    Purse(store, run).open(budget, 0)
    opened = rounds.open_round(store, run, Config().model_dump(mode="json"))
    assert opened.id is not None
    picks = [Query(round_id=opened.id, item_key=f"q{k}", position=k, arm="random") for k in range(n)]
    rounds.enter(store, opened, Stage.ASK, picks)
    return opened.id


async def asked(store: Store, run: str, round_id: int, teacher: Any, config: TeacherConfig, sleep: Sleep) -> None:
    """Ask for what is missing, at the pace of the config if it has one."""
    await ask(
        asking.missing(store, round_id, 1),
        teacher,
        asking.RoundAskBook(store, run, round_id, config if config.requests_per_minute else None),
        TASK,
        config,
        round_id=round_id,
        demonstrations=lambda _: (),
        progress=Silent(),
        sleep=sleep,
    )


# --- at the limit -----------------------------------------------------------------------------------------------------


def a_teacher(n: int) -> RecordedTeacher:
    """The recorded teacher that misbehaves."""
    rows = [Recording(key=i.key, question=i.question, steps=("It is even.",), answer="4") for i in some_items(n)]
    return RecordedTeacher(rows, FAULTS)


def at_the_limit(way: str, teacher: RecordedTeacher, began: float, n: int, lost: int) -> Row:
    """What became of a run at the limit; one that lost most of its requests is counted as far as it came."""
    assert teacher.limit is not None
    counted = max(1, min(n, len(teacher.limit.passed)) - CONCURRENCY)
    return {
        "way": way,
        "seconds": round(teacher.limit.passed[-1] - began, 1),
        "share": counted / ((teacher.limit.passed[counted - 1] - began) * RATE / 60),
        "passed": len(teacher.limit.passed),
        "refused": teacher.limit.refused,
        "lost": lost,
    }


def ours_at_the_limit(file: Path, n: int) -> Row:
    """Reserve, keep the pace, send, settle."""
    store, teacher = a_store(file, n), a_teacher(n)
    budget = 10**9
    round_id = a_round(store, "limit", n, budget)
    with running(teacher) as address:
        config = TeacherConfig(
            model="recorded", base_url=address, input_price=0.15, output_price=0.6, timeout=TIMEOUT,
            concurrency=CONCURRENCY, requests_per_minute=RATE, attempts=8,
        )  # fmt: skip
        began, teacher.limit = time.monotonic(), Limit(RATE)
        asyncio.run(asked(store, "limit", round_id, OpenAITeacher(config), config, asyncio.sleep))
    books = accounts(store, "limit", round_id, n, budget)
    store.close()
    return at_the_limit("ours", teacher, began, n, books["lost"]) | books


def gathered_at_the_limit(n: int) -> Row:
    """All requests at once, with the retries of the SDK."""
    teacher = a_teacher(n)
    with running(teacher) as address:
        began, teacher.limit = time.monotonic(), Limit(RATE)
        replies = asyncio.run(gathered(address, n))
    return at_the_limit("gather", teacher, began, n, sum(isinstance(each, Exception) for each in replies))


async def gathered(address: str, n: int) -> Sequence[object]:
    """The replies, or why none came."""
    async with AsyncOpenAI(base_url=address, api_key="none", max_retries=8, timeout=TIMEOUT) as client:
        config = TeacherConfig(model="recorded")
        requests = [request_for(item, TASK, config, (), 0) for item in some_items(n)]
        calls = [
            client.chat.completions.create(
                model=each.model,
                messages=[dict(message) for message in each.messages],
                max_completion_tokens=each.max_completion_tokens,
            )
            for each in requests
        ]
        return await asyncio.gather(*calls, return_exceptions=True)


# --- random runs ------------------------------------------------------------------------------------------------------


class Unruly:
    """An endpoint with faults at random; prices are a micro-dollar an output token."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    async def complete(self, request: Request) -> Completion:
        """A reply of random length, or a fault."""
        await asyncio.sleep(0)
        chance = self._dice.random()
        if chance < 0.02:
            raise TeacherBusy("429", retry_after=self._dice.choice([None, 1.0, 1e9]), sent=False, overloaded=True)
        if chance < 0.03:
            raise TeacherBusy("500")
        if chance < 0.04:
            raise TeacherBusy("no answer", overloaded=True)
        made = min(request.max_completion_tokens, round(60 * self._dice.lognormvariate(0, 0.5)))
        ends = "length" if made == request.max_completion_tokens else "stop"
        usage = (None, None) if self._dice.random() < 0.01 else (100, made)
        return Completion('{"steps": ["so"], "answer": "4"}', request.model, ends, *usage)

    def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:  # noqa: ARG002 - the port's
        """A tenth of a micro-dollar an input token, one an output token."""
        return -(-input_tokens // 10) + output_tokens


async def no_time(_: float) -> None:
    """Sleep without waiting."""
    await asyncio.sleep(0)


async def interrupted(store: Store, run: str, round_id: int, config: TeacherConfig, dice: random.Random) -> None:
    """Ask; in half of the cases be cut off somewhere, and ask for the rest."""
    if dice.random() < 0.5:
        first = asyncio.create_task(asked(store, run, round_id, Unruly(dice), config, no_time))
        for _ in range(dice.randrange(400)):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    await asked(store, run, round_id, Unruly(dice), config, no_time)


def random_runs(folder: Path, runs: int) -> list[Row]:
    """So many runs, in processes with a database each."""
    parts = [range(part, runs, PROCESSES) for part in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        return [row for rows in pool.map(some_random_runs, [folder] * PROCESSES, parts) for row in rows]


def some_random_runs(folder: Path, seeds: Sequence[int]) -> list[Row]:
    """Runs of these seeds in a database of their own."""
    store = a_store(folder / f"random{seeds[0]}.db", ITEMS)
    rows = [random_run(store, seed) for seed in seeds]
    store.close()
    return rows


def random_run(store: Store, seed: int) -> Row:
    """One run with everything at random."""
    dice, run = random.Random(seed), f"random-{seed}"
    budget = round(ITEMS * 180 * dice.uniform(0.1, 1.5))
    round_id = a_round(store, run, ITEMS, budget)
    config = TeacherConfig(model=run, concurrency=dice.choice([1, 4, 16]), attempts=8, max_completion_tokens=800)
    with contextlib.suppress(TeacherDown):
        asyncio.run(interrupted(store, run, round_id, config, dice))
    return {"way": "random", "budget": budget} | accounts(store, run, round_id, ITEMS, budget)


def accounts(store: Store, run: str, round_id: int, n: int, budget: int) -> Row:
    """What the ledger says of a run, checked entry by entry."""
    balance = Purse(store, run).balances()[Currency.USD]
    with store.reading() as session:
        charges = session.exec(select(Charge).where(Charge.run == run)).all()
        replies = session.exec(select(Reply).where(Reply.round_id == round_id)).all()
        queries = session.exec(select(Query).where(Query.round_id == round_id)).all()
    spent = sum(each.settled for each in charges)
    held = sum(each.reserved for each in charges if each.state is ChargeState.RESERVED)
    assert (balance.spent, balance.reserved) == (spent, held), "the counters are not the sums of the entries"
    paid = Counter(each.purpose.rpartition("/")[0] for each in charges if each.output_tokens is not None)
    answered = {each.item_key for each in replies}
    given_up = {each.item_key for each in queries if each.problem and "budget" in each.problem}
    return {
        "spent": spent,
        "answered": len(answered),
        "overspend_microdollars": max(0, spent + held - budget),
        "paid_twice": sum(number - 1 for number in paid.values()) + sum(paid.values()) - len(replies),
        "lost": n - len(answered | given_up),
    }


def print_table(cells: list[Row]) -> None:
    """The runs at the limit, and the random ones as one line."""
    table = Table("way", "seconds", "of the rate", "refused by the limit", "overspent", "paid twice", "lost")
    chance = of_way(cells, "random")
    for each in cells[: len(cells) - len(chance)]:
        table.add_row(
            each["way"], str(each["seconds"]), f"{each['share']:.3f}", str(each["refused"]),
            str(each.get("overspend_microdollars", "-")), str(each.get("paid_twice", "-")), str(each["lost"]),
        )  # fmt: skip
    names = ("overspend_microdollars", "paid_twice", "lost")
    table.add_row(f"{len(chance)} random", "-", "-", "-", *(str(sum(c[name] for c in chance)) for name in names))
    Console().print(table)


if __name__ == "__main__":
    main()
