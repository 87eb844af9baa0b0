"""What Ray costs and what it gains: candidates are scored in this process, by one worker of Ray, and by two.

All compute with one thread on the same cores: SmolLM2 explains sums, chunk by chunk, and each chunk is stored in a
database as a round stores it. Start-up is left out: workers have loaded the student before the clock runs. The share of
overhead is the time by one worker beside that in process; the speed-up is one worker's time beside two workers'. The
scores of all must be the same, row for row.

Run as `python -m benchmarks.cluster --json FILE [--quick] [--seeds N]`. Run again with the same file, it goes on.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import cells
from benchmarks.kept import RESAMPLES, figure, ratio, write
from connectors import cluster
from connectors.wiring import makes_students
from loop.answer import AnswerKind
from loop.config import ClusterConfig, QueryConfig, StudentConfig, TaskConfig
from loop.ports import Cluster, InProcess, Student
from loop.query import select
from loop.records import Item, Score, Split
from loop.store import items, rounds
from loop.store.database import Store

METHODS = ("in_process", "one_worker", "two_workers")
SOURCES = [
    "benchmarks/cluster.py", "connectors/cluster.py", "connectors/ray_workers.py", "loop/query/select.py",
    "loop/store/rounds.py",
]  # fmt: skip
TASK = TaskConfig(answer=AnswerKind.NUMBER)
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is scored."""

    items: int
    chunk: int = 8
    samples: int = 3
    longest: int = 64
    least_seconds: float = 0.0
    """Work in process that the figures may rest on."""


FULL, QUICK = Size(items=192, least_seconds=120.0), Size(items=16, chunk=4)


def main() -> None:
    """Run the cells that are missing, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, help="not used")
    parser.add_argument("--quick", action="store_true", help="a twelfth of the items, once")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions")
    chosen = parser.parse_args()
    size, seeds = (QUICK, 1) if chosen.quick else (FULL, chosen.seeds)
    found = cells.stored(chosen.json) if chosen.json else []
    wanted = [(method, seed) for seed in range(seeds) for method in METHODS]
    keep = partial(_write, chosen.json, size, seeds)
    cells.run(wanted, ("method", "seed"), found, partial(run_cell, size=size), jobs=1, write=keep)
    _print_table(found)


def run_cell(method: str, seed: int, *, size: Size) -> Row:
    """Score all chunks once; the seconds, and a hash of what is stored."""
    torch.set_num_threads(1)
    student, query = StudentConfig(max_new_tokens=size.longest), QueryConfig(samples=size.samples)
    with tempfile.TemporaryDirectory() as folder, _placed(method, student) as (where, looks):
        store = Store(f"sqlite:///{folder}/store.db")
        store.migrate()
        pool = [_sum(number) for number in range(size.items)]
        items.add(store, pool)
        opened = rounds.open_round(store, "cluster", {})
        assert opened.id is not None
        round_id = opened.id

        def scored(student: Student, piece: tuple[int, Sequence[Item]]) -> list[Score]:
            number, chunk = piece
            return select.score_chunk(round_id, number, chunk, student, query, seed=seed)

        def warmed(student: Student, chunk: Sequence[Item]) -> None:
            select.score_chunk(0, 0, chunk, student, query, seed=0)
            time.sleep(2.0)  # so that each worker is given one of two

        chunks = select.chunks(pool, size.chunk)
        list(where.map(looks, warmed, [pool[:1]] * 2))
        began = time.monotonic()
        for _, scores in where.map(looks, scored, [*enumerate(chunks)]):
            rounds.keep_scores(store, scores)
        seconds = time.monotonic() - began
        stored = [[row.item_key, row.chunk, row.score, row.parts] for row in rounds.scores(store, round_id)]
        store.close()
    if method == METHODS[0] and seconds < size.least_seconds:
        raise SystemExit(f"{seconds:.0f} s of work in process are too few: raise FULL.items")
    digest = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()
    return {"method": method, "seed": seed, "seconds": seconds, "scores": digest}


@contextmanager
def _placed(method: str, student: StudentConfig) -> Iterator[tuple[Cluster, Student]]:
    """Where the student works, and the student."""
    if method == METHODS[0]:
        yield InProcess(), makes_students(student, TASK).student(None)
        return
    settings = ClusterConfig(kind="ray", workers=1 + (method == METHODS[2]))
    with cluster.opened(settings, student, TASK, Console().print) as found:
        yield found, found.student(None)


def _sum(number: int) -> Item:
    question = f"Ann has {3 + number % 17} pens and buys {5 + number} more. How many pens does she have?"
    return Item(key=f"q{number:04}", question=question, split=Split.POOL, text_hash=f"q{number}")


def _write(file: Path | None, size: Size, seeds: int, found: Sequence[Row]) -> None:
    """The figures of the cells that are there."""
    if file is None:
        return
    taken = {name: [each["seconds"] for each in found if each["method"] == name] for name in METHODS}
    figures = {}
    if all(taken.values()):
        figures["overhead_share"] = _overhead(taken["one_worker"], taken["in_process"])
        figures["speedup_two_workers"] = ratio(taken["one_worker"], taken["two_workers"])
    settings = {"repetitions": seeds, **asdict(size), "same_scores": _are_same(found)}
    write(file, "cluster", settings=settings, figures=figures, sources=SOURCES, cells=list(found))


def _overhead(slow: Sequence[float], plain: Sequence[float]) -> Row:
    """How much longer one takes: share of the plain time, 95 % bootstrap interval over repetitions."""
    chance = np.random.default_rng(0)
    drawn = [
        chance.choice(slow, len(slow)).mean() / chance.choice(plain, len(plain)).mean() - 1 for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return figure(float(np.mean(slow) / np.mean(plain) - 1), float(low), float(high), "share")


def _are_same(found: Sequence[Row]) -> bool:
    """Whether all methods stored the same scores."""
    by_seed: dict[int, set[str]] = {}
    for each in found:
        by_seed.setdefault(each["seed"], set()).add(each["scores"])
    return all(len(digests) == 1 for digests in by_seed.values())


def _print_table(found: Sequence[Row]) -> None:
    table = Table("method", "repetition", "seconds", "scores")
    for each in found:
        table.add_row(each["method"], str(each["seed"]), f"{each['seconds']:.1f}", each["scores"][:12])
    Console().print(table)
    if not _are_same(found):
        raise SystemExit("the methods stored different scores")


if __name__ == "__main__":
    main()
