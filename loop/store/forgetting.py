"""Takes an item out of the database: every row that refers to it, and its text and key where others name it."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import FromClause, delete, func, literal, select, tuple_
from sqlmodel import Session, SQLModel, col
from sqlmodel import select as rows_of

from loop.answer import Answer, AnswerKind
from loop.records import (
    BatchJob,
    BatchLine,
    Charge,
    Checkpoint,
    ConfigRow,
    Contamination,
    DemonstrationSet,
    Export,
    Flag,
    Forgotten,
    Item,
    Prompt,
    ReviewTask,
    Round,
    Shadow,
    Stage,
)
from loop.store.cascade import Rows, rows_about, table_of, values_of
from loop.store.database import Store, now
from loop.store.pieces import among, pieces
from loop.store.texts import conditions, leaves, whole, with_text, without

TEXTS = {
    "item": ("question", "context", "choices", "steps", "answer"),
    "score": ("parts",),
    "rationale": ("steps", "answer", "stated"),
    "reply": ("text",),
    "revisionreply": ("text",),
    "trial": ("text", "steps", "answer"),
    "judgement": ("text", "evidence"),
    "verdict": ("steps", "answer"),
    "prediction": ("steps", "answer"),
    "corruption": ("steps",),
}
"""Columns whose lines are an item's own text; of an answer that is free text what it says."""
KEYED: tuple[tuple[type[SQLModel], str], ...] = (
    (DemonstrationSet, "groups"),
    (Shadow, "correct"),
    (Contamination, "pairs"),
    (Checkpoint, "card"),
)
"""Columns of rows about other things in whose JSON keys stand."""
CARD_KEYS = ("validation_keys", "left_out", "seed_keys")
"""Lists of keys on a student's card."""
SHORTEST = 10
"""Characters of a line by which an item can be told from others."""
TERM = re.compile(r"[!-~]{1,40}")
"""A single word of Latin letters, which any file may have."""
LONGEST = 200
"""Longer lines are looked for in parts."""
QUOTED = 79
"""So much of a question stands in doubts about other items, as the nearest one."""
GONE = "forgotten"
"""What stands where a key or a text stood."""


@dataclass(frozen=True)
class Held:
    """What the database holds of an item: rows by table, those of others that name it, and what to look for."""

    rows: Mapping[str, int]
    texts: tuple[str, ...]
    """Lines of its own that stand in no other item."""
    shared: tuple[str, ...]
    """Keys of other items with some of its lines, which stay there."""
    replies: tuple[str, ...]
    """What teacher and judge replied about it alone, whole."""
    tasks: tuple[ReviewTask, ...]


def digest(key: str) -> str:
    """By which a forgotten key is known."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def forgotten(store: Store, keys: Iterable[str]) -> dict[str, datetime]:
    """Those of the keys that were forgotten, and when."""
    with store.reading() as session:
        return forgotten_in(session, keys)


def forgotten_in(session: Session, keys: Iterable[str]) -> dict[str, datetime]:
    """As `forgotten`, within a transaction."""
    if session.exec(rows_of(Forgotten.digest).limit(1)).first() is None:
        return {}
    by_digest = {digest(key): key for key in keys}
    found = session.exec(rows_of(Forgotten).where(among(session, col(Forgotten.digest), [*by_digest])))
    return {by_digest[row.digest]: row.forgotten_at for row in found}


def taught_since(store: Store, since: datetime) -> bool:
    """Whether an item that a student had learned was forgotten since then."""
    with store.reading() as session:
        query = rows_of(Forgotten).where(col(Forgotten.taught), col(Forgotten.forgotten_at) >= since)
        return session.exec(query).first() is not None


def held(store: Store, item: Item) -> Held:
    """What there is of an item, in every run."""
    with store.reading() as session:
        rows = rows_about(session, item.key)
        tasks = [session.get_one(ReviewTask, each) for each in sorted(rows.get(table_of(ReviewTask), ()))]
        replies = [
            text
            for name in ("reply", "revisionreply", "trial", "judgement")
            for text in values_of(session, rows, "text", name)
        ]
        own, mine, shared = _apart(session, rows, _lines(session, rows, item), replies)
        return Held(
            rows=_counted(rows, _naming(session, item.key, own)),
            texts=tuple(own),
            shared=tuple(sorted(shared)),
            replies=tuple(mine),
            tasks=tuple(tasks),
        )


def open_round(store: Store, key: str, texts: Iterable[str]) -> Round | None:
    """The open round that works on an item, if there is one: it asked it, or a batch at the endpoint shows it."""
    with store.reading() as session:
        is_open = col(Round.stage) != Stage.CLOSED
        worked = {number for number in _rounds_of(session, key) if number is not None}
        shown = (
            rows_of(Round)
            .join(BatchJob, col(BatchJob.round_id) == Round.id)
            .join(BatchLine, col(BatchLine.job_id) == BatchJob.id)
            .where(col(BatchJob.closed_at).is_(None))
        )
        batched = [each.hash for each in with_text(session, Prompt, "body", texts)]
        asked = session.exec(rows_of(Round).where(is_open, col(Round.id).in_(worked))).first()
        return asked or session.exec(shown.where(col(BatchLine.prompt_hash).in_(batched))).first()


def remove(store: Store, key: str, texts: Sequence[str], *, taught: bool) -> None:
    """Take the item out, in one transaction; a digest of its key stays. `taught`: some student learned it."""
    with store.writing() as session:
        if session.get_bind().dialect.name == "sqlite":
            session.connection().exec_driver_sql("PRAGMA secure_delete=ON")
        rows = rows_about(session, key)
        prompts = values_of(session, rows, "prompt_hash")
        for table in reversed(SQLModel.metadata.sorted_tables):
            for part in pieces(rows.get(table, ())):
                session.execute(delete(table).where(tuple_(*table.primary_key).in_(part)))
        _remove_prompts(session, prompts)
        _unname(session, key, texts)
        if session.get(Forgotten, digest(key)) is None:
            session.add(Forgotten(digest=digest(key), forgotten_at=now(), taught=taught))


def search(store: Store, texts: Sequence[str], key: str = "") -> tuple[dict[str, int], int]:
    """Where a text stands, in how many rows, by table and column of all tables; and how many columns were looked at.

    The key, which may be any word, is looked for where keys stand.
    """
    found: dict[str, int] = {}
    looked = 0
    with store.reading() as session:
        for table in SQLModel.metadata.sorted_tables:
            looked += len(table.columns)
            line = select(whole(table).label("line")).subquery()
            if _count(session, line, line.c.line, texts):
                counts = {each.name: _count(session, table, each, texts) for each in table.columns}
                found |= {f"{table.name}.{name}": number for name, number in counts.items() if number}
        return found | (_where_named(session, key) if key else {}), looked


def _where_named(session: Session, key: str) -> dict[str, int]:
    """In how many rows a key stands, by table and column."""
    own = [each for table in SQLModel.metadata.sorted_tables for each in table.c if each.name in ("key", "item_key")]
    counting = select(func.count())
    found = {
        f"{each.table.name}.{each.name}": session.execute(counting.where(each == key)).scalar_one() for each in own
    }
    places: tuple[tuple[type[SQLModel], str], ...] = (*KEYED, (Charge, "purpose"), (Export, "filters"))
    columns = {table_of(model).name: name for model, name in places}
    rows = Counter(table_of(type(row)).name for row in _naming(session, key, ()))
    found |= {f"{name}.{columns[name]}": number for name, number in rows.items()}
    return {place: number for place, number in found.items() if number}


def _count(session: Session, of: FromClause, column: Any, texts: Sequence[str]) -> int:
    """In how many rows one of the texts stands in a column."""
    counting = select(func.count()).select_from(of)
    return sum(int(session.execute(counting.where(each)).scalar_one()) for each in conditions(session, column, texts))


def _rounds_of(session: Session, key: str) -> set[int]:
    """The rounds in which something of an item was asked, written, reviewed or decided."""
    rows = rows_about(session, key)
    return set(values_of(session, {each: rows[each] for each in rows if each.name != "score"}, "round_id"))


def _lines(session: Session, rows: Rows, item: Item) -> list[str]:
    """The lines of all its texts, long ones in parts, by which it can be told from other items."""
    found = [" ".join(item.question.split())[:QUOTED]]
    for name, columns in TEXTS.items():
        for column in columns:
            found += [text for value in values_of(session, rows, column, name) for text in _said(column, value)]
    parts = (part for text in found for line in text.splitlines() for part in _parts(line.strip()))
    return [part for part in dict.fromkeys(parts) if len(part) >= SHORTEST and (not TERM.fullmatch(part))]


def _said(column: str, value: Any) -> Iterator[str]:
    """The texts in the value of a column; an answer is canonical JSON, and free text or none."""
    if column != "answer":
        yield from leaves(value)
    elif value is not None and (answer := Answer.from_canonical(value)).kind is AnswerKind.TEXT:
        yield answer.value


def _parts(line: str) -> list[str]:
    """A line in parts that stand on one page of the database; only a short line is too short to be looked for."""
    cuts = [*range(0, max(1, len(line) - SHORTEST), LONGEST), len(line)]
    return [line[start:end] for start, end in pairwise(cuts)]


def _apart(
    session: Session, rows: Rows, lines: Sequence[str], replies: Sequence[str]
) -> tuple[list[str], list[str], set[str]]:
    """Those of the lines, and of the replies, that stand nowhere else; and the keys of the items that share others."""
    own, mine, shared = list(lines), dict.fromkeys(replies), set[str]()
    for owner, text in _elsewhere(session, rows):
        mine.pop(text, None)
        if theirs := {line for line in own if line in text}:
            shared.add(owner)
            own = [line for line in own if line not in theirs]
    return own, list(mine), shared - {""}


def _elsewhere(session: Session, rows: Rows) -> Iterator[tuple[str, str]]:
    """The texts of other items, each with the item's key where its row has it, and those of the task."""
    for name, columns in TEXTS.items():
        table = SQLModel.metadata.tables[name]
        owner = next((table.c[each] for each in ("item_key", "key") if each in table.c), literal(""))
        query = select(owner, *(table.c[each] for each in columns), *table.primary_key)
        with closing(session.execute(query.execution_options(yield_per=1000))) as found:
            for key, *said in found:
                if tuple(said[len(columns) :]) not in rows.get(table, ()):
                    yield key, "\n".join(text for pair in zip(columns, said, strict=False) for text in _said(*pair))
    for body in session.exec(rows_of(ConfigRow.body)):
        yield "", "\n".join(leaves(body))
    bodies = session.exec(rows_of(Prompt.body).execution_options(yield_per=1000))
    told = {each["content"] for body in bodies for each in body["messages"] if each["role"] == "system"}
    yield "", "\n".join(told)


def _naming(session: Session, key: str, texts: Sequence[str]) -> list[SQLModel]:
    """Rows about other things that hold the item's text or key: prompts that show it, doubts that quote it, ..."""
    quoted = json.dumps(key)
    return [
        *with_text(session, Prompt, "body", texts),
        *with_text(session, Flag, "evidence", texts),
        *(row for model, column in KEYED for row in with_text(session, model, column, [quoted])),
        *_charges(session, key),
        *(row for row in session.exec(rows_of(Export)) if any(map(_filter(key).match, row.filters))),
    ]


def _filter(key: str) -> re.Pattern[str]:
    """A condition of an export that names the item: `key!=KEY`."""
    return re.compile(rf"\A(key(?:<=|>=|!=|=|<|>)){re.escape(key)}\Z")


def _charges(session: Session, key: str) -> list[Charge]:
    """The charges whose purpose names the item, and no item whose key begins as its own does."""
    longer = session.exec(rows_of(Item.key).where(col(Item.key).startswith(f"{key}/", autoescape=True))).all()
    found = session.exec(rows_of(Charge).where(col(Charge.purpose).contains(key, autoescape=True)))
    return [each for each in found if _purpose(key).match(each.purpose) and not any(
        _purpose(other).match(each.purpose) for other in longer
    )]  # fmt: skip


def _purpose(key: str) -> re.Pattern[str]:
    """What the purpose of a charge for an item begins with: `ask/3/KEY`, `review/run/3/KEY`."""
    return re.compile(rf"(\w+/\d+/|review/[^/]+/\d+/){re.escape(key)}(?=/|$)")


def _counted(rows: Rows, naming: Iterable[SQLModel]) -> dict[str, int]:
    """How many rows there are by table; those that only name the item are counted where they are not its own."""
    counts = Counter({table.name: len(keys) for table, keys in rows.items()})
    for row in naming:
        table = table_of(type(row))
        counts[table.name] += tuple(getattr(row, each.name) for each in table.primary_key) not in rows.get(table, ())
    return dict(counts)


def _remove_prompts(session: Session, hashes: Iterable[str]) -> None:
    """Delete those prompts to which nothing refers any more."""
    referring = [
        column
        for table in SQLModel.metadata.sorted_tables
        for column in table.c
        if any(each.column.table is table_of(Prompt) for each in column.foreign_keys)
    ]
    for part in pieces(hashes):
        used = [select(column).where(column.in_(part)) for column in referring]
        kept = {value for query in used for (value,) in session.execute(query)}
        session.execute(
            delete(table_of(Prompt)).where(table_of(Prompt).c.hash.in_([each for each in part if each not in kept]))
        )


def _unname(session: Session, key: str, texts: Sequence[str]) -> None:
    """Put a word in the place of the item's key and text where other rows hold them."""
    for row in _naming(session, key, texts):
        if isinstance(row, Prompt):
            row.body = without(row.body, texts, f"[{GONE}]")
        elif isinstance(row, Flag):
            row.evidence = without(row.evidence, texts, f"[{GONE}]")
        elif isinstance(row, DemonstrationSet):
            row.groups = [[each for each in group if each["key"] != key] for group in row.groups]
        elif isinstance(row, Shadow):
            row.correct = {name: right for name, right in row.correct.items() if name != key}
        elif isinstance(row, Checkpoint):
            lists = {name: row.card[name] for name in CARD_KEYS if name in row.card}
            row.card = row.card | {name: [each for each in keys if each != key] for name, keys in lists.items()}
        elif isinstance(row, Charge):
            row.purpose = _purpose(key).sub(rf"\g<1>{GONE}", row.purpose, count=1)
        elif isinstance(row, Export):
            row.filters = [_filter(key).sub(rf"\g<1>{GONE}", each) for each in row.filters]
        else:
            session.delete(row)  # a look at all items, which is made again
            continue
        session.add(row)
