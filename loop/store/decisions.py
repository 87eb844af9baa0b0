"""Decisions in the store: append-only, the newest of an item counts."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from sqlmodel import Session, col, func, select

from loop.records import Decision, DecisionKind, Item, Rationale, Verdict, VerdictKind, deciding
from loop.store import rationales, reviews
from loop.store.database import Store
from loop.store.tainted import closed_by_replies


def keep(store: Store, decisions: Sequence[Decision]) -> None:
    """Append decisions, each superseding its item's newest one; a round decides an item once."""
    with store.writing() as session:
        append(session, decisions)


def append(session: Session, decisions: Sequence[Decision]) -> None:
    """As `keep`, within a transaction."""
    for decision in decisions:
        if _decided_in(session, decision):
            continue
        last = _newest_of(session, decision.run, decision.item_key)
        if last is not None:
            decision.version, decision.supersedes = last.version + 1, last.id
        session.add(decision)
        session.flush()


def supersede(store: Store, decisions: Sequence[Decision]) -> int:
    """Append decisions that take the place of those they name, where these are still in force; how many."""
    appended = 0
    with store.writing() as session:
        for decision in decisions:
            last = _newest_of(session, decision.run, decision.item_key)
            if last is not None and last.id == decision.supersedes:
                decision.version = last.version + 1
                session.add(decision)
                appended += 1
    return appended


def newest(store: Store, run: str, until: int | None = None) -> dict[str, Decision]:
    """The decision in force by item key, now or when the decision of the id `until` was the newest."""
    query = select(Decision).where(Decision.run == run).order_by(col(Decision.id))
    with store.reading() as session:
        rows = session.exec(query if until is None else query.where(col(Decision.id) <= until))
        return {row.item_key: row for row in rows}


def in_force_by_round(
    store: Store, run: str, kinds: Collection[DecisionKind], until: int | None = None
) -> Counter[int]:
    """How many items are decided so, now or as in `newest`, by the id of the deciding round."""
    newest = select(func.max(Decision.id)).where(Decision.run == run)
    if until is not None:
        newest = newest.where(col(Decision.id) <= until)
    query = (
        select(Decision.round_id, func.count())
        .where(col(Decision.id).in_(newest.group_by(col(Decision.item_key))), col(Decision.kind).in_(kinds))
        .group_by(col(Decision.round_id))
    )
    with store.reading() as session:
        return Counter(dict(session.exec(query).all()))


def last_id(store: Store, run: str) -> int:
    """The id of a run's latest decision; 0 before the first one."""
    with store.reading() as session:
        return session.exec(select(func.max(Decision.id)).where(Decision.run == run)).one() or 0


def taken_back(store: Store, run: str, since: int) -> list[str]:
    """The items that taught when the decision of that id was the latest one, and teach no longer."""
    then, today = newest(store, run, since), newest(store, run)
    return sorted(key for key, row in then.items() if _teaches(row) and not _teaches(today[key]))


def decided(store: Store, run: str, until: int | None = None) -> list[tuple[Item, Rationale, Decision]]:
    """Gold and silver in force, now or as in `newest`, with item and rationale, by item key."""
    ids = [row.id for row in newest(store, run, until).values() if _teaches(row)]
    query = (
        select(Item, Rationale, Decision)
        .join(Decision, col(Decision.item_key) == Item.key)
        .join(Rationale, col(Rationale.id) == Decision.rationale_id)
        .where(Decision.run == run)
        .order_by(col(Item.key))
    )
    wanted = set(ids)
    with store.reading() as session:
        return [(item, rationale, row) for item, rationale, row in session.exec(query) if row.id in wanted]


def refused(store: Store, run: str, until: int | None = None) -> dict[str, Rationale]:
    """What people corrected or rejected of each item, the latest, by item key; only rationales that can be read.

    By what was decided until now or as in `newest`, where the people's word for it still counts: what a later decision
    of the same round or a recall took back was not refused. Where the teacher went on from corrected steps, what had
    been corrected is the rationale before them.
    """
    query = (
        select(Decision, Rationale)
        .join(Rationale, col(Rationale.id) == Decision.rationale_id, isouter=True)
        .where(Decision.run == run)
        .order_by(col(Decision.id))
    )
    query = query if until is None else query.where(col(Decision.id) <= until)
    with store.reading() as session:
        last = {(row.round_id, row.item_key): (row, rationale) for row, rationale in session.exec(query)}
        closed = set(session.exec(closed_by_replies(run)))
    standing = [(row, rationale) for at, (row, rationale) in last.items() if rationale is not None and at not in closed]
    gold = [rationale for row, rationale in standing if row.kind is DecisionKind.GOLD]
    before = rationales.superseded(store, gold)
    rejected = [rationale for row, rationale in standing if row.kind is DecisionKind.REJECTED]
    rows = [*rejected, *(each for one in gold for each in rationales.chain(one, before)[:-1])]
    said = reviews.verdicts(store, [row.id or 0 for row in rows])
    return {row.item_key: row for row in rows if row.answer is not None and row.steps and _is_refused(row, said)}


def _is_refused(row: Rationale, said: Mapping[int, Sequence[Verdict]]) -> bool:
    """Whether somebody's word that decides about a rationale is other than to accept it."""
    return any(each.kind is not VerdictKind.ACCEPT for each in deciding(said.get(row.id or 0, ())))


def _teaches(row: Decision) -> bool:
    return row.kind in (DecisionKind.GOLD, DecisionKind.SILVER)


def _decided_in(session: Session, decision: Decision) -> bool:
    """Whether the decision's round has decided about its item."""
    query = select(Decision.id).where(
        Decision.run == decision.run, Decision.item_key == decision.item_key, Decision.round_id == decision.round_id
    )
    return session.exec(query).first() is not None


def _newest_of(session: Session, run: str, key: str) -> Decision | None:
    query = select(Decision).where(Decision.run == run, Decision.item_key == key)
    return session.exec(query.order_by(col(Decision.id).desc())).first()
