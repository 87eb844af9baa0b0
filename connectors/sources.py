"""Takes items in: checked, split and stored once; what cannot be used is named by file and line."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from connectors.files import Raw, reader_of
from connectors.recordings import IngestedRationales, ingest_rationales
from connectors.rows import Refused, Row, allowed_answer, at_most, checked, item_of
from loop.config import PoolConfig, TaskConfig
from loop.errors import BadRow
from loop.ports import Progress
from loop.records import Item, Part, Split
from loop.store import forgetting, items
from loop.store.database import Store

__all__ = ["Ingested", "IngestedRationales", "ingest", "ingest_rationales", "is_holdout", "part_of"]

CHUNK = 1000
"""Rows that are looked up and stored in one transaction."""
SHOWN = 5
"""Refused items that a summary names."""


@dataclass
class Ingested:
    """What became of the rows. `leaked` are those refused because the holdout holds the same item."""

    added: Counter[Split] = field(default_factory=Counter)
    known: int = 0
    bad: Refused = field(default_factory=Refused)
    leaked: Refused = field(default_factory=Refused)

    def summary(self) -> str:
        """One sentence for each thing that happened."""
        parts = ", ".join(f"{self.added[split]} {split}" for split in Split if self.added[split]) or "none"
        lines = [f"items added: {parts}; known already: {self.known}; bad rows: {self.bad.total}"]
        if self.leaked:
            more = f", and {self.leaked.total - SHOWN} more" if self.leaked.total > SHOWN else ""
            lines.append(f"refused because they stand in the holdout: {self.leaked.total}")
            lines += [f"  {line}" for line in self.leaked[:SHOWN]]
            lines[-1] += more
        return "\n".join(lines)


def ingest(
    paths: Sequence[Path],
    store: Store,
    *,
    split: Split | None,
    pool: PoolConfig,
    task: TaskConfig,
    progress: Progress,
) -> Ingested:
    """Store the items of all files; without `split`, rows with an answer are shared between holdout and pool.

    Where the command does not say the split, the holdout is taken in first, so that nothing of it gets into the pool.

    Raises:
        BadRow: a file is missing, cannot be opened, or is of an unknown kind; nothing was stored.
    """
    for path in paths:
        reader_of(path)
    report = Ingested()
    passes: Sequence[Split] = (split,) if split else (Split.HOLDOUT, Split.POOL)
    with progress.bar("files are read", len(paths) * len(passes)) as bar:
        for current in passes:
            door = _Door(store, current, split is None, pool, task, report)
            for path in paths:
                door.take(path, first=current is passes[0])
                bar.advance()
    return report


def is_holdout(key: str, share: float) -> bool:
    """Whether the hash of a key falls into the holdout's share."""
    return _unit("holdout", key) < share


def part_of(key: str, dev_share: float) -> Part:
    """Which part of the holdout a key belongs to, by its hash."""
    return Part.DEV if _unit("dev", key) < dev_share else Part.TEST


def _unit(purpose: str, key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{key}".encode()).digest()[:6]) / 2**48


class _Door:
    """Takes the rows of one split in, a chunk at a time."""

    def __init__(
        self, store: Store, split: Split, by_hash: bool, pool: PoolConfig, task: TaskConfig, report: Ingested
    ) -> None:
        self._store = store
        self._split = split
        self._by_hash = by_hash
        self._pool = pool
        self._task = task
        self._report = report

    def take(self, path: Path, *, first: bool) -> None:
        """Take in the rows of a file; what is wrong with its rows is said in the first pass only."""
        rows = self._usable(path, first)
        empty = True
        while chunk := list(islice(rows, CHUNK)):
            empty = False
            self._store_chunk([item for item in chunk if item is not None])
        if empty and first:
            self._report.bad.append(f"{path}: no rows in it")

    def _usable(self, path: Path, first: bool) -> Iterator[Item | None]:
        """The items of this split in their order; None for rows that are bad or of another split."""
        try:
            for raw in reader_of(path)(path):
                yield self._item(raw, first)
        except BadRow as error:
            yield None
            if first:
                self._report.bad.append(str(error))

    def _item(self, raw: Raw, first: bool) -> Item | None:
        """The item, if it belongs to this split; a row that no split can use is named in the first pass only."""
        try:
            row = checked(raw)
        except BadRow as error:
            if first:
                self._report.bad.append(str(error))
            return None
        if self._split_of(row) is not self._split:
            return None
        try:
            return self._made(row, raw)
        except BadRow as error:
            self._report.bad.append(str(error))
            return None

    def _split_of(self, row: Row) -> Split:
        if not self._by_hash:
            return self._split
        return Split.HOLDOUT if row.answer and is_holdout(row.key, self._pool.holdout_share) else Split.POOL

    def _made(self, row: Row, raw: Raw) -> Item:
        """The item of a row. Answers of pool rows are not looked at."""
        trusted = self._split is not Split.POOL
        return item_of(
            row,
            raw,
            self._task,
            split=self._split,
            part=part_of(row.key, self._pool.dev_share) if self._split is Split.HOLDOUT else None,
            answer=allowed_answer(row, raw, self._task).canonical if trusted else None,
            steps=list(at_most(row.steps, self._task.max_steps)) if trusted else [],
            source=f"{Path(raw.file).name}:{raw.line}",
        )

    def _store_chunk(self, chunk: Sequence[Item]) -> None:
        """Store what is new; the rest is known, leaked, or contradicts what is there."""
        by_key = items.existing(self._store, [item.key for item in chunk])
        by_text = items.by_hash(self._store, [item.text_hash for item in chunk])
        gone = forgetting.forgotten(self._store, [item.key for item in chunk])
        new: list[Item] = []
        for item in chunk:
            if item.key in gone:
                told = f"{item.source}: item {item.key!r} was forgotten on {gone[item.key]:%Y-%m-%d}"
                self._report.bad.append(f"{told}, and is not taken in again; leave it out of the file")
                continue
            there = by_key.get(item.key) or by_text.get(item.text_hash)
            if there is None:
                new.append(item)
                by_key[item.key] = by_text[item.text_hash] = item
            else:
                self._meet(item, there)
        items.add(self._store, new)
        self._report.added[self._split] += len(new)

    def _meet(self, item: Item, there: Item) -> None:
        """An item whose key or text is there already."""
        both = f"{item.source}: item {item.key!r}"
        stands = f"item {there.key!r} ({there.source}) of the {there.split}"
        if item.text_hash != there.text_hash:
            self._report.bad.append(f"{both} has another text than {stands}; give one of them another key")
        elif item.split is not there.split:
            self._cross(item, there, both, stands)
        elif item.answer != there.answer:
            self._report.bad.append(f"{both} has another answer than the same {stands}; keep the right one")
        else:
            self._report.known += 1

    def _cross(self, item: Item, there: Item, both: str, stands: str) -> None:
        """The same item in two splits: the holdout is never shared, and a seed item need not be asked."""
        if there.split is Split.HOLDOUT:
            self._report.leaked.append(f"{both} is {stands}")
        elif item.split is Split.POOL:
            self._report.known += 1
        else:
            cure = f"ingest the {item.split} before the {there.split}, into a new database"
            self._report.bad.append(f"{both} is {stands} already, so it cannot be used as {item.split}; {cure}")
