"""Items in the store."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from sqlmodel import Session, col, func, insert, select

from loop.answer import Answer
from loop.records import Contamination, Item, Part, Query, Split, text_of
from loop.store.database import MANY_ROWS, Store, bulk, insert_texts, take_turns
from loop.store.forgetting import forgotten_in
from loop.store.pieces import among, by_characters, pieces

LOOKED_UP = 100_000
"""Items that are looked up in one query."""
STREAMED = 1000
"""Items of a stream that are in memory at once."""


NewItem = tuple[str, str, str, str, str, str | None, str | None, str, str, str]
"""What the table has of an item that comes in, in the order of `NEW`; without the checks and the price of a row class.

`choices` and `steps` are JSON, `part` is the name of the part. It is a tuple without names, as a million of those with
names keep the garbage collector busy.
"""
NEW = ("key", "question", "context", "choices", "domain", "part", "answer", "steps", "text_hash", "source")


class There(NamedTuple):
    """What is known of an item that is there already."""

    key: str
    text_hash: str
    split: Split
    answer: str | None
    source: str


def add(store: Store, items: Sequence[Item]) -> int:
    """Add items whose key is new, the first of several with one key; how many."""
    first = {item.key: item for item in reversed(items)}
    with store.writing() as session:
        take_turns(session, Item)
        known, arrival = _existing(session, first), _next_arrival(session)
        new = [first[key] for key in sorted(first) if key not in known]
        for item in new:
            item.arrival = arrival
        session.add_all(new)
    return len(new)


def take_in(store: Store, split: Split, items: Sequence[NewItem]) -> tuple[int, list[tuple[NewItem, There | datetime]]]:
    """Add the items whose key and text are new, below the row classes, in one transaction.

    How many were added; and those that were not, in their order, each with the item that has its key or its text, or
    with the time when its key was forgotten. Of several with one key or text the first is added.
    """
    with store.writing() as session, bulk(session, len(items)):
        take_turns(session, Item)
        keys = [item[0] for item in items]
        by_key: dict[str, There | NewItem | datetime] = {
            each.key: each for each in _there(session, col(Item.key), keys)
        }
        by_key |= forgotten_in(session, keys)
        hashes = [item[8] for item in items if item[0] not in by_key]
        by_hash: dict[str, There | NewItem]
        by_hash = {each.text_hash: each for each in _there(session, col(Item.text_hash), hashes)}
        if by_key or by_hash or not len(set(keys)) == len(set(hashes)) == len(items):
            new, met = _told_apart(items, by_key, by_hash, split)
        else:
            new, met = list(items), []
        new.sort(key=itemgetter(0))
        insert_texts(session, Item, NEW, new, split=split.name, arrival=_next_arrival(session))
    return len(new), met


def _told_apart(
    items: Sequence[NewItem],
    by_key: dict[str, There | NewItem | datetime],
    by_hash: dict[str, There | NewItem],
    split: Split,
) -> tuple[list[NewItem], list[tuple[NewItem, There | datetime]]]:
    """The items whose key and text are new, and the others with what is there, which may have come with them."""
    new: list[NewItem] = []
    met: list[tuple[NewItem, There | datetime]] = []
    for item in items:
        key, hashed = item[0], item[8]
        there = by_key.get(key) or by_hash.get(hashed)
        if there is None:
            new.append(item)
            by_key[key] = by_hash[hashed] = item
        else:
            met.append((item, _as_there(there, split)))
    return new, met


def _there(session: Session, column: Any, names: Sequence[str]) -> Iterator[There]:
    """What is there of items that have one of these keys, or text hashes."""
    query: Any = select(*(getattr(Item, name) for name in There._fields))
    ordered = sorted(names)  # so that the pages of an index are read one after the other
    for start in range(0, len(ordered), LOOKED_UP):
        found = session.exec(query.where(among(session, column, ordered[start : start + LOOKED_UP])))
        yield from (There(*row) for row in found)


def _as_there(there: There | NewItem | datetime, split: Split) -> There | datetime:
    """What is there already, which may have come in with the same items."""
    if isinstance(there, There | datetime):
        return there
    key, *_, answer, _, hashed, source = there
    return There(key, hashed, split, answer, source)


def _next_arrival(session: Session) -> int:
    """A number above those of all items, and of what was looked at: the newest may have been forgotten since."""
    return 1 + max(newest_arrival(session, *Split), session.exec(select(func.max(Contamination.through))).one() or 0)


def newest_arrival(session: Session, *splits: Split) -> int:
    """The largest arrival of the splits' items."""
    newest = (session.exec(select(func.max(Item.arrival)).where(Item.split == each)).one() for each in splits)
    return max(each or 0 for each in newest)


def get(store: Store, key: str) -> Item | None:
    """An item by key."""
    with store.reading() as session:
        return session.get(Item, key)


def existing(store: Store, keys: Iterable[str]) -> dict[str, Item]:
    """Those of the keys that are there."""
    with store.reading() as session:
        return _existing(session, keys)


def by_hash(store: Store, hashes: Iterable[str]) -> dict[str, Item]:
    """Items by the hash of their normalised text."""
    found: dict[str, Item] = {}
    with store.reading() as session:
        for part in pieces(hashes):
            found |= {item.text_hash: item for item in session.exec(select(Item).where(col(Item.text_hash).in_(part)))}
    return found


def of_split(store: Store, split: Split, part: Part | None = None) -> list[Item]:
    """All items of a split, or of one part of the holdout, by key."""
    query = select(Item).where(Item.split == split).order_by(col(Item.key))
    with store.reading() as session:
        return list(session.exec(query if part is None else query.where(Item.part == part)))


def stream(store: Store, split: Split) -> Iterator[Item]:
    """The items of a split, in any order; a few are in memory at once."""
    query = select(Item).where(Item.split == split).execution_options(yield_per=STREAMED)
    with store.reading() as session, closing(session.exec(query)) as found:
        yield from found


def texts(store: Store, split: Split, *, after: int = -1) -> Iterator[tuple[str, tuple[str, str]]]:
    """All that each item of a split says, and what it asks, by key, in any order; without those up to an addition."""
    query = select(Item.key, Item.question, Item.context, Item.choices)
    query = query.where(Item.split == split, col(Item.arrival) > after)
    query = query.execution_options(yield_per=STREAMED)
    with store.reading() as session, closing(session.exec(query)) as found:
        for key, question, context, choices in found:
            yield key, (text_of(question, context, choices), "\n".join([question, *choices]))


def keys(store: Store, split: Split) -> Iterator[str]:
    """The keys of a split's items, in any order."""
    query = select(Item.key).where(Item.split == split).execution_options(yield_per=STREAMED)
    with store.reading() as session, closing(session.exec(query)) as found:
        yield from found


def first(store: Store, split: Split) -> Item | None:
    """An item of a split, whichever comes first."""
    with store.reading() as session:
        return session.exec(select(Item).where(Item.split == split).order_by(col(Item.key)).limit(1)).first()


def domains(store: Store, split: Split) -> set[str]:
    """The domains of a split's items."""
    with store.reading() as session:
        return set(session.exec(select(Item.domain).where(Item.split == split).distinct()))


def count(store: Store) -> dict[Split, int]:
    """How many items each split has."""
    with store.reading() as session:
        rows = session.exec(select(Item.split, func.count()).group_by(col(Item.split)))
        return {Split(split): number for split, number in rows}


def _existing(session: Session, keys: Iterable[str]) -> dict[str, Item]:
    wanted, found = [*set(keys)], dict[str, Item]()
    for start in range(0, len(wanted), LOOKED_UP):
        some = among(session, col(Item.key), wanted[start : start + LOOKED_UP])
        found |= {item.key: item for item in session.exec(select(Item).where(some))}
    return found


def unasked(store: Store) -> Generator[str]:
    """The keys of pool items that no round of any run has queried, in the order of their characters."""
    asked = select(Query.item_key).where(Query.item_key == Item.key).exists()
    with store.reading() as session:
        query = select(Item.key).where(Item.split == Split.POOL, ~asked).order_by(by_characters(session, Item.key))
        with closing(session.exec(query.execution_options(yield_per=STREAMED))) as found:
            yield from found


def copy(store: Store, into: Store) -> None:
    """Put all items, as they are at one moment, into a store that has none."""
    query = select(*Item.__table__.columns).execution_options(yield_per=LOOKED_UP)  # type: ignore[attr-defined]
    with store.snapshot() as session, into.writing() as written, bulk(written, MANY_ROWS):
        found: Any = session.exec(query)
        for some in found.mappings().partitions():
            written.execute(insert(Item), [dict(each) for each in some])


def in_order(store: Store) -> Iterator[Item]:
    """All items, split by split, in the order of their keys' characters; a few are in memory at once."""
    with store.reading() as session:
        for split in Split:
            query = select(Item).where(Item.split == split).order_by(by_characters(session, Item.key))
            with closing(session.exec(query.execution_options(yield_per=STREAMED))) as found:
                yield from found


def make_holdout(store: Store, key: str, answer: Answer, part: Part) -> bool:
    """Move a pool item that was never queried to the holdout with its gold answer; False where it cannot move."""
    with store.writing() as session:
        item = session.get(Item, key)
        asked = session.exec(select(Query).where(Query.item_key == key)).first()
        if item is None or item.split is not Split.POOL or asked is not None:
            return False
        take_turns(session, Item)
        item.split, item.part, item.answer = Split.HOLDOUT, part, answer.canonical
        item.arrival = _next_arrival(session)
        session.add(item)
    return True
