"""Items in the store."""

from collections import Counter
from collections.abc import Iterable, Sequence

from sqlmodel import Session, col, func, select

from loop.answer import Answer
from loop.config import Config
from loop.records import Decision, DecisionKind, Item, Part, Query, Round, Split
from loop.store import contamination
from loop.store.asking import SENT
from loop.store.certificates import held_back
from loop.store.database import Store, take_turns
from loop.store.domains import spent_domains
from loop.store.pieces import pieces
from loop.store.withdrawals import awaiting_in


def add(store: Store, items: Sequence[Item]) -> int:
    """Add items whose key is new, the first of several with one key; how many."""
    first = {item.key: item for item in reversed(items)}
    with store.writing() as session:
        take_turns(session, Item)
        known = _existing(session, first)
        new = [first[key] for key in sorted(first) if key not in known]
        session.add_all(new)
    return len(new)


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


def count(store: Store) -> dict[Split, int]:
    """How many items each split has."""
    with store.reading() as session:
        rows = session.exec(select(Item.split, func.count()).group_by(col(Item.split)))
        return {Split(split): number for split, number in rows}


def eligible(store: Store, run: str, config: Config) -> list[Item]:
    """Pool items that the run may still query, by key: asked fewer than `query.max_asks` times, not settled, not held
    back, not waiting to be reviewed again after a recall, of no domain whose own budget is spent, and no known
    duplicates of holdout items unless these are allowed.
    """
    with store.reading() as session:
        spent = spent_domains(session, run, config.budget)
        held = {query.item_key for query in held_back(session, run)} | {*awaiting_in(session, run)}
        asked = Counter(
            session.exec(
                select(Query.item_key).join(Round, col(Round.id) == Query.round_id).where(Round.run == run, SENT)
            )
        )
        rows = session.exec(
            select(Decision.item_key, Decision.kind).where(Decision.run == run).order_by(col(Decision.id))
        )
        newest = {key: DecisionKind(kind) for key, kind in rows}
        pool = session.exec(select(Item).where(Item.split == Split.POOL).order_by(col(Item.key))).all()
        if not config.query.allow_holdout_duplicates:
            texts = ((item.key, item.text_hash) for item in pool)
            look = contamination.look_in(session, config.query.holdout_similarity, texts)
            held |= look.pairs.keys() if look else set()
        settled = (DecisionKind.GOLD, DecisionKind.SILVER)
        open_items = [item for item in pool if item.key not in held and newest.get(item.key) not in settled]
        return [item for item in open_items if asked[item.key] < config.query.max_asks and item.domain not in spent]


def _existing(session: Session, keys: Iterable[str]) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for part in pieces(keys):
        found |= {item.key: item for item in session.exec(select(Item).where(col(Item.key).in_(part)))}
    return found


def unasked(store: Store) -> list[Item]:
    """Items that no round of any run has queried, by key."""
    asked = select(Query.item_key)
    with store.reading() as session:
        return list(session.exec(select(Item).where(col(Item.key).not_in(asked)).order_by(col(Item.key))))


def make_holdout(store: Store, key: str, answer: Answer, part: Part) -> bool:
    """Move a pool item that was never queried to the holdout with its gold answer; False where it cannot move."""
    with store.writing() as session:
        item = session.get(Item, key)
        asked = session.exec(select(Query).where(Query.item_key == key)).first()
        if item is None or item.split is not Split.POOL or asked is not None:
            return False
        item.split, item.part, item.answer = Split.HOLDOUT, part, answer.canonical
        session.add(item)
    return True
