"""Which items a run may still ask: found by the database, and streamed, so that a pool of any size fits."""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from sqlalchemy import union
from sqlmodel import Session, col, func, select

from loop.config import Config
from loop.records import Decision, DecisionKind, Item, Query, Reopened, Round, Split, Withdrawal
from loop.store import contamination, items
from loop.store.asking import SENT
from loop.store.certificates import held_in
from loop.store.database import Store
from loop.store.domains import spent_domains
from loop.store.pieces import by_characters, pieces

STREAMED = 10_000
"""Keys that are fetched at once."""
SETTLED = (DecisionKind.GOLD, DecisionKind.SILVER)


def keys(store: Store, run: str, config: Config, *, through: int | None = None) -> Generator[str]:
    """The keys of the pool items that the run may still query, in their order, which is that of their characters.

    These were asked fewer than `query.max_asks` times, are not settled, not held back, not waiting to be reviewed again
    after a recall, of no domain whose own budget is spent, and no known duplicates of holdout items unless these are
    allowed. `through` leaves out what came after an addition: nobody has looked at it for duplicates yet.
    """
    with store.reading() as session:
        alike = _duplicates(session, config)
        query = _open(session, run, config, select(Item.key), through).order_by(by_characters(session, Item.key))
        with closing(session.exec(query.execution_options(yield_per=STREAMED))) as found:
            yield from (key for key in found if key not in alike)


def stream(store: Store, run: str, config: Config) -> Iterator[Item]:
    """The items themselves, in any order; a few are in memory at once."""
    with store.reading() as session:
        alike = _duplicates(session, config)
        query = _open(session, run, config, select(Item)).execution_options(yield_per=STREAMED // 10)
        with closing(session.exec(query)) as found:
            yield from (item for item in found if item.key not in alike)


def first(store: Store, run: str, config: Config) -> Item | None:
    """The item of the first key."""
    with closing(keys(store, run, config)) as found:
        key = next(found, None)
    return None if key is None else items.get(store, key)


def count(store: Store, run: str, config: Config, *, through: int | None = None) -> int:
    """How many of them there are, counted by the database alone."""
    with store.reading() as session:
        total = select(func.count()).select_from(Item)
        left = session.exec(_open(session, run, config, total, through)).one()
        for piece in pieces(_duplicates(session, config)):
            left -= session.exec(_open(session, run, config, total, through).where(col(Item.key).in_(piece))).one()
        return int(left)


def _open(session: Session, run: str, config: Config, query: Any, through: int | None = None) -> Any:
    """A query on items, for those that may be asked; near-duplicates of holdout items are among them."""
    out = _closed(run, config).subquery()
    query = query.outerjoin(out, out.c.item_key == Item.key).where(Item.split == Split.POOL, out.c.item_key.is_(None))
    spent = spent_domains(session, run, config.budget)
    if spent:
        query = query.where(col(Item.domain).not_in(spent))
    return query if through is None else query.where(col(Item.arrival) <= through)


def _closed(run: str, config: Config) -> Any:
    """The keys of items that may not be asked, each once: few, as a run has looked at each of them."""
    asked = (
        select(Query.item_key)
        .join(Round, col(Round.id) == Query.round_id)
        .where(Round.run == run, SENT)
        .group_by(col(Query.item_key))
        .having(func.count() >= config.query.max_asks)
    )
    newest = select(func.max(Decision.id)).where(Decision.run == run).group_by(col(Decision.item_key))
    settled = select(Decision.item_key).where(col(Decision.id).in_(newest), col(Decision.kind).in_(SETTLED))
    back = select(Query.item_key).join(Round, col(Round.id) == Query.round_id).where(*held_in(run))
    reopened = select(Decision.item_key).join(Reopened, col(Reopened.decision_id) == Decision.id)
    reopened = reopened.join(Withdrawal, col(Withdrawal.id) == Reopened.withdrawal_id)
    reopened = reopened.where(col(Decision.id).in_(newest), Withdrawal.reviewer != "")
    return union(asked, settled, back, reopened)


def _duplicates(session: Session, config: Config) -> frozenset[str]:
    """Keys of pool items that are known to read like holdout items, and are not to be asked."""
    found = contamination.look_in(session, config.query.holdout_similarity)
    return frozenset() if found is None or config.query.allow_holdout_duplicates else frozenset(found.pairs)
