"""A pool of a million: taken in from Parquet, looked at for holdout duplicates, sieved and selected from, and counted.

Short questions are made up. `ingest` takes a Parquet file in; `look` streams the pool past a holdout of 1,000 items;
`select` is the stage that chooses a batch of 50, whose sieve asks a stand-in for the student about every item (its
doubt is a checksum: our own work is measured, not a model's); `again` is the same stage in the next round with the same
student, whose doubts are kept; `status` is what the command prints. The floor is the same rows handed to the same table
by the driver alone, `executemany` on SQLite and COPY on PostgreSQL, in transactions of as many rows. Each repetition
runs in a process of its own with a database of its own, and the peak is of that process: the server of PostgreSQL, with
its default settings, is not in it. The growth is the slope of the wall seconds of ingest, look, select and status over
the pool's size, both as logarithms, from 10,000 items to the largest pool.

Run as `python -m benchmarks.scale --json FILE [--data PATH] [--quick] [--seeds N]`; each repetition is stored when it
is done, so run again with the same file it goes on.
"""

import argparse
import random
import resource
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import cells, postgres
from benchmarks.kept import figure, write
from connectors.columns import plain_rows
from connectors.files import Piece, pieces_of
from connectors.rows import text_hash
from connectors.sources import CHUNK, ingest
from connectors.status import status
from loop.config import Config
from loop.ports import Silent, Student
from loop.records import Checkpoint, Item, Split, Stage
from loop.stages import select
from loop.stages.contamination import look
from loop.stages.parts import Parts
from loop.store import checkpoints, items, rounds
from loop.store.database import Store, bulk, insert_all, now
from loop.store.items import NEW

SIZES = (10_000, 100_000, 1_000_000)
HELD_OUT = 1000
BATCH = 50
RUN = "main"
WAYS, DATABASES = ("ours", "floor"), ("sqlite", "postgresql")
STEPS = ("ingest", "look", "select", "status")
SOURCES = [
    "benchmarks/scale.py",
    *(f"connectors/{name}.py" for name in ("columns", "files", "rows", "sources", "status", "unpacking")),
    *(f"loop/query/{name}.py" for name in ("control", "select", "sieve")),
    *(f"loop/stages/{name}.py" for name in ("contamination", "select")),
    *(f"loop/store/{name}.py" for name in ("contamination", "database", "doubts", "items", "pieces", "pool")),
    "loop/resemblance.py",
]
Row = dict[str, Any]
Thing = TypeVar("Thing")


def main() -> None:
    """Run the cells that are missing, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="not used: the questions are made up")
    parser.add_argument("--quick", action="store_true", help="no pool of a million")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions of each size")
    chosen = parser.parse_args()
    sizes = SIZES[:2] if chosen.quick else SIZES
    wanted = list(product(sizes, range(chosen.seeds), WAYS, DATABASES))
    found, keep = cells.stored(chosen.json), partial(_write, chosen.json, sizes, chosen.seeds)
    cells.run(wanted, ("size", "seed", "way", "database"), found, run_cell, jobs=1, write=keep)
    _print(found, _figures(found, sizes))


def run_cell(size: int, seed: int, way: str, database: str) -> Row:
    """One repetition with a database of its own; the process must be its own too, for the peak."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _database(Path(folder), database) as address,
        closing(Store(address)) as store,
    ):
        store.migrate()
        found = (_ours if way == "ours" else _floor)(store, _made_up(Path(folder) / "pool.parquet", size))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"size": size, "seed": seed, "way": way, "database": database, **found, "peak_gib": peak}


@contextmanager
def _database(folder: Path, name: str) -> Iterator[str]:
    """The address of an empty database."""
    if name == "sqlite":
        yield f"sqlite:///{folder / 'store.db'}"
    else:
        with postgres.cluster() as address:
            yield address


def _made_up(file: Path, size: int) -> Path:
    """Short questions, each another one."""
    chance, names = random.Random(0), ("Ann", "Bob", "Cara", "Dan", "Eve", "Finn")
    things = ("apples", "pens", "books", "coins", "cards", "stamps")
    schema = pa.schema([("question", pa.string()), ("domain", pa.string())])
    with pq.ParquetWriter(file, schema) as writer:
        for places in _pieces(iter(range(size)), 10_000):
            questions = [
                f"{chance.choice(names)} has {place} {chance.choice(things)} and gives {chance.randrange(1000)} away. "
                f"How many {chance.choice(things)} are left after {chance.randrange(9)} days?"
                for place in places
            ]
            columns = {"question": questions, "domain": [f"domain {place % 5}" for place in places]}
            writer.write_table(pa.table(columns, schema))
    return file


def _pieces(some: Iterator[Thing], size: int) -> Iterator[list[Thing]]:
    while piece := list(islice(some, size)):
        yield piece


# --- one repetition ---------------------------------------------------------------------------------------------------


def _ours(store: Store, file: Path) -> Row:
    items.add(store, [_held_out(number) for number in range(HELD_OUT)])
    size = pq.ParquetFile(file).metadata.num_rows
    query = {"acquisition": "least_confidence", "batch_size": BATCH, "diversity": 1, "sieve": -(-size // (5 * BATCH))}
    config = Config.model_validate({"run": {"name": RUN}, "query": query, "task": {"answer": "number"}})

    def taken_in() -> object:
        return ingest([file], store, split=Split.POOL, pool=config.pool, task=config.task, progress=Silent()).added[
            Split.POOL
        ]

    seconds = {"ingest": _timed(taken_in), "look": _timed(lambda: look(store, config.query))}
    _train_one(store, config)
    student = StandIn()
    for name in ("select", "again"):
        opened = rounds.open_round(store, RUN, config.model_dump(mode="json"))
        parts = Parts(cast(Any, student), cast(Any, student), cast(Any, None), Silent(), Path())
        seconds[name] = _timed(lambda opened=opened, parts=parts: select.select_batch(opened, store, parts, config))
        if name == "select":
            assert student.doubted == size, "the sieve did not see the whole pool"
            _close(store, opened.id or 0)
    assert student.doubted == size, "doubts that were known were asked for again"
    seconds["status"] = _timed(lambda: status(store, RUN, config))
    return {
        **{f"{name}_seconds": wall for name, (wall, _) in seconds.items()},
        **{f"{name}_cpu_seconds": cpu for name, (_, cpu) in seconds.items()},
    }


def _timed(act: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def _held_out(number: int) -> Item:
    question = f"A farmer sells {number} eggs on Monday and twice as many on Friday; how many eggs is that in all?"
    return Item(
        key=f"held {number}", question=question, split=Split.HOLDOUT, text_hash=text_hash(question), answer='{"x": 1}'
    )


def _train_one(store: Store, config: Config) -> None:
    """A closed round that leaves a student in force."""
    opened = rounds.open_round(store, RUN, config.model_dump(mode="json"))
    kept = checkpoints.keep(store, Checkpoint(run=RUN, round_id=opened.id, folder="-", examples=0, created_at=now()))
    rounds.enter(store, opened, Stage.CLOSED, student_id=kept.id, candidate_id=kept.id, closed_at=now())


def _close(store: Store, round_id: int) -> None:
    """Close a round that kept the student."""
    current = rounds.by_id(store, round_id)
    last = next(each.student_id for each in rounds.all_rounds(store, RUN) if each.student_id is not None)
    rounds.enter(store, current, Stage.CLOSED, student_id=last, closed_at=now())


class StandIn:
    """In the place of trainer, teacher and student: what it says is a checksum of the key."""

    doubted = 0

    def student(self, _: Path | None) -> Student:
        """The trainer's part."""
        return cast(Student, self)

    def price(self, *_: object, **__: object) -> int:
        """The teacher's part."""
        return 1

    def doubt(self, some: Sequence[Item]) -> NDArray[np.float32]:
        """Between 0 and 1, counted."""
        self.doubted += len(some)
        return _sums(some)

    def probabilities(self, some: Sequence[Item]) -> list[tuple[float, ...]]:
        """Of two answers."""
        return [(0.5 + each / 2, 0.5 - each / 2) for each in _sums(some).tolist()]

    def embed(self, some: Sequence[Item]) -> NDArray[np.float32]:
        """Nothing is told apart."""
        return np.zeros((len(some), 1), dtype=np.float32)


def _sums(some: Sequence[Item]) -> NDArray[np.float32]:
    return np.array([zlib.crc32(item.key.encode()) / 2**32 for item in some], dtype=np.float32)


def _floor(store: Store, file: Path) -> Row:
    """The same rows, put into the table by the driver alone; what they are made of is not in the time."""
    wall = cpu = 0.0
    for rows in _pieces(_rows(file), CHUNK):
        made = sorted(rows)
        started, worked = time.perf_counter(), time.process_time()
        with store.writing() as session, bulk(session, len(made)):
            insert_all(session, Item, (*NEW, "split", "arrival"), made)
        wall, cpu = wall + time.perf_counter() - started, cpu + time.process_time() - worked
    return {"ingest_seconds": wall, "ingest_cpu_seconds": cpu}


def _rows(file: Path) -> Iterator[tuple[Any, ...]]:
    for piece in pieces_of(file) or ():
        assert isinstance(piece, Piece)
        for at, row in enumerate(plain_rows(piece)):
            assert row is not None
            _, question, _, _, domain, _ = row
            hashed, source = text_hash(question), f"{file.name}:{piece.first + at}"
            yield (hashed[:16], question, "", "[]", domain, None, None, "[]", hashed, source, Split.POOL.name, 1)


# --- figures ----------------------------------------------------------------------------------------------------------


def _write(file: Path, sizes: Sequence[int], seeds: int, found: Sequence[Row]) -> None:
    settings = {
        "sizes": list(sizes), "repetitions": seeds, "holdout": HELD_OUT, "batch": BATCH, "rows_a_transaction": CHUNK,
        "time": "wall seconds; CPU seconds of the process stand in the cells", "student": "a stand-in",
    }  # fmt: skip
    write(file, "scale", settings=settings, figures=_figures(found, sizes), sources=SOURCES, cells=list(found))


def _figures(found: Sequence[Row], sizes: Sequence[int]) -> Row:
    """Of the largest pool, and of 100,000 items under names that end in `.100k`; of a size once all its ways are in."""
    figures: Row = {}
    for size in sizes[1:]:
        end = "" if size == SIZES[-1] else f".{size // 1000}k"
        for name in DATABASES:
            own = [each for each in found if each["database"] == name and each["size"] == size]
            if {each["way"] for each in own} != {*WAYS}:
                continue
            ours = [each for each in own if each["way"] == "ours"]
            rates = {
                way: [size / each["ingest_seconds"] for each in own if each["way"] == way] for way in ("ours", "floor")
            }
            figures[f"ingest_per_second.{name}{end}"] = _mean(rates["ours"], "items/s")
            figures[f"floor_per_second.{name}{end}"] = _mean(rates["floor"], "items/s")
            for step in ("look", "select", "again", "status"):
                figures[f"{step}_seconds.{name}{end}"] = _mean([each[f"{step}_seconds"] for each in ours], "s")
            peak = max(each["peak_gib"] for each in ours)
            figures[f"peak_gib.{name}{end}"] = figure(peak, min(each["peak_gib"] for each in ours), peak, "GiB")
            growth = [
                each for each in found if each["database"] == name and each["way"] == "ours" and each["size"] <= size
            ]
            figures[f"growth_exponent.{name}{end}"] = _growth(growth)
    return figures


def _mean(values: Sequence[float], unit: str) -> Row:
    """The mean over repetitions with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(axis=1)
    return figure(float(np.mean(values)), *map(float, np.quantile(drawn, [0.025, 0.975])), unit)


def _growth(found: Sequence[Row]) -> Row:
    """The slope of all steps' seconds over the size, as logarithms; the interval is of slopes through repetitions."""
    by_size: dict[int, list[float]] = {}
    for each in found:
        by_size.setdefault(each["size"], []).append(sum(each[f"{step}_seconds"] for step in STEPS))
    chance, sizes = np.random.default_rng(0), np.log(list(by_size))

    def slope(seconds: Sequence[float]) -> float:
        return float(np.polyfit(sizes, np.log(seconds), 1)[0])

    drawn = [slope([float(chance.choice(some, len(some)).mean()) for some in by_size.values()]) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return figure(slope([float(np.mean(some)) for some in by_size.values()]), float(low), float(high), "of the size")


def _print(found: Sequence[Row], figures: Row) -> None:
    steps = ("ingest", "look", "select", "again", "status")
    table = Table("way", "database", "items", *(f"{step} s (CPU)" for step in steps), "peak GiB", box=None)
    for each in found:
        times = [_time(each, step) for step in steps]
        table.add_row(each["way"], each["database"], f"{each['size']:,}", *times, f"{each['peak_gib']:.2f}")
    console = Console(width=140)
    console.print(table)
    for name, each in figures.items():
        console.print(f"{name}: {each['value']} {each['unit']} ({each['low']} to {each['high']})")


def _time(cell: Row, step: str) -> str:
    seconds = cell.get(f"{step}_seconds")
    return "" if seconds is None else f"{seconds:.2f} ({cell[f'{step}_cpu_seconds']:.2f})"


if __name__ == "__main__":
    main()
