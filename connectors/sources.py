"""Takes items in: checked, split and stored once; what cannot be used is named by file and line."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from connectors.columns import plain_rows
from connectors.files import Piece, Raw, pieces_of, reader_of
from connectors.recordings import IngestedRationales, ingest_rationales
from connectors.rows import (
    Refused,
    Row,
    allowed_answer,
    at_most,
    checked,
    key_of,
    require_choices,
    text_hash,
)
from loop.answer import AnswerKind
from loop.config import PoolConfig, TaskConfig
from loop.errors import BadRow
from loop.ports import Progress
from loop.records import Part, Split
from loop.store import items
from loop.store.database import Store
from loop.store.items import NewItem, There

__all__ = ["Ingested", "IngestedRationales", "ingest", "ingest_rationales", "is_holdout", "part_of"]

CHUNK = 200_000
"""Items that are looked up and stored in one transaction: with fewer, pages of the indexes are written more often."""
CHUNK_TEXT = 2**25
"""Characters of their texts; with more, fewer items are stored in one transaction."""
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


@dataclass(frozen=True)
class _Chunk:
    """Items that are stored in one transaction, and what was wrong with rows on the way."""

    items: Sequence[NewItem]
    bad: Refused


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
        self._bad = Refused()

    def take(self, path: Path, *, first: bool) -> None:
        """Take in the rows of a file; what is wrong with its rows is said in the first pass only.

        A thread reads what comes next while the database stores what came before.
        """
        with ThreadPoolExecutor(1, "reader") as reader:
            chunks = self._chunks(path, first)
            coming = reader.submit(next, chunks, None)
            while (chunk := coming.result()) is not None:
                coming = reader.submit(next, chunks, None)
                self._report.bad.add(chunk.bad)
                self._store_chunk(chunk.items)

    def _chunks(self, path: Path, first: bool) -> Iterator[_Chunk]:
        """What a file brings, as much at a time as is stored in one transaction."""
        chosen: list[NewItem] = []
        empty, size = True, 0
        try:
            for some in self._usable(path, first):
                empty = False
                chosen += some
                size += sum([len(question) + len(context) + len(choices) for _, question, context, choices, *_ in some])
                if len(chosen) >= CHUNK or size > CHUNK_TEXT:
                    yield self._chunk(chosen)
                    chosen, size = [], 0
            if empty and first:
                self._bad.append(f"{path}: no rows in it")
        except BadRow as error:
            if first:
                self._bad.append(str(error))
        yield self._chunk(chosen)

    def _chunk(self, chosen: list[NewItem]) -> _Chunk:
        """These items, and what was wrong with rows since the last chunk."""
        chunk, self._bad = _Chunk(chosen, self._bad), Refused()
        return chunk

    def _usable(self, path: Path, first: bool) -> Iterator[list[NewItem]]:
        """The items of this split in their order, a row or a piece at a time; rows may bring none."""
        pieces = pieces_of(path)
        for piece in reader_of(path)(path) if pieces is None else pieces:
            found = [self._item(piece, first)] if isinstance(piece, Raw) else self._of_piece(piece, first)
            yield [item for item in found if item is not None]

    def _of_piece(self, piece: Piece, first: bool) -> Iterator[NewItem | None]:
        """The items of a piece of a table: pool items from its columns, the others a row at a time."""
        file = Path(piece.file).name
        chooses, pooled = self._task.answer is AnswerKind.CHOICE, self._split is Split.POOL
        for line, row in enumerate(plain_rows(piece), start=piece.first):
            if row is None or (chooses and not row[3]):
                yield self._item(piece.row(line - piece.first), first)
                continue
            key, question, context, choices, domain, answer = row
            hashed = text_hash(question, context, choices)
            key = key or key_of(hashed)
            if self._split_of(key, answer) is not self._split:
                continue
            if pooled:
                told = json.dumps(choices) if choices else "[]"
                yield (key, question, context, told, domain, None, None, "[]", hashed, f"{file}:{line}")
            else:
                yield self._item(piece.row(line - piece.first), first)

    def _item(self, raw: Raw, first: bool) -> NewItem | None:
        """The item, if it belongs to this split; a row that no split can use is named in the first pass only."""
        try:
            row = checked(raw)
        except BadRow as error:
            if first:
                self._bad.append(str(error))
            return None
        if self._split_of(row.key, row.answer) is not self._split:
            return None
        try:
            return self._made(row, raw)
        except BadRow as error:
            self._bad.append(str(error))
            return None

    def _split_of(self, key: str, answer: str) -> Split:
        if not self._by_hash:
            return self._split
        return Split.HOLDOUT if answer and is_holdout(key, self._pool.holdout_share) else Split.POOL

    def _made(self, row: Row, raw: Raw) -> NewItem:
        """The item of a row. Answers of pool rows are not looked at."""
        trusted = self._split is not Split.POOL
        answer = allowed_answer(row, raw, self._task).canonical if trusted else None
        require_choices(row, raw, self._task)
        part = part_of(row.key, self._pool.dev_share).name if self._split is Split.HOLDOUT else None
        steps = json.dumps(at_most(row.steps, self._task.max_steps) if trusted else ())
        texts = row.key, row.question, row.context, json.dumps(row.choices), row.domain
        return (*texts, part, answer, steps, row.text_hash, f"{Path(raw.file).name}:{raw.line}")

    def _store_chunk(self, chunk: Sequence[NewItem]) -> None:
        """Store what is new; the rest is known, leaked, forgotten, or contradicts what is there."""
        if not chunk:
            return
        added, met = items.take_in(self._store, self._split, chunk)
        self._report.added[self._split] += added
        for each in met:
            self._meet(*each)

    def _meet(self, item: NewItem, there: There | datetime) -> None:
        """An item that was forgotten, or whose key or text is there already."""
        key, *_, answer, _, hashed, source = item
        both = f"{source}: item {key!r}"
        if isinstance(there, datetime):
            told = f"{both} was forgotten on {there:%Y-%m-%d}"
            self._report.bad.append(f"{told}, and is not taken in again; leave it out of the file")
        elif hashed != there.text_hash:
            self._report.bad.append(f"{both} has another text than {_told(there)}; give one of them another key")
        elif self._split is not there.split:
            self._cross(there, both)
        elif answer != there.answer:
            self._report.bad.append(f"{both} has another answer than the same {_told(there)}; keep the right one")
        else:
            self._report.known += 1

    def _cross(self, there: There, both: str) -> None:
        """The same item in two splits: the holdout is never shared, and a seed item need not be asked."""
        if there.split is Split.HOLDOUT:
            self._report.leaked.append(f"{both} is {_told(there)}")
        elif self._split is Split.POOL:
            self._report.known += 1
        else:
            cure = f"ingest the {self._split} before the {there.split}, into a new database"
            self._report.bad.append(f"{both} is {_told(there)} already, so it cannot be used as {self._split}; {cure}")


def _told(there: There) -> str:
    """An item that is there, for people."""
    return f"item {there.key!r} ({there.source}) of the {there.split}"
