"""Certificates in the store, and the audits that are held back for them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from loop.records import Certificate, Decision, Item, Promise, Query, Rationale, Risk, Round, Verdict, audited_wrong
from loop.store.database import Store
from loop.store.decisions import append
from loop.store.rationales import FIRST
from loop.store.reviews import verdicts


@dataclass(frozen=True)
class Audit:
    """A certifying audit with what was reviewed, and what people said of it."""

    query: Query
    item: Item
    rationale: Rationale
    risk: float
    verdicts: tuple[Verdict, ...]
    held: bool
    """Whether nothing was decided about it yet."""

    @property
    def wrong(self) -> bool:
        """Whether it counts as wrong: see `loop.records.audited_wrong`."""
        return audited_wrong(self.verdicts)


def keep(store: Store, certificate: Certificate, decisions: Sequence[Decision]) -> None:
    """Store a look, and the decisions about the audits that it releases, in one transaction."""
    with store.writing() as session:
        session.add(certificate)
        append(session, decisions)


def note_passing(store: Store, round_id: int, keys: Collection[str]) -> None:
    """Note which certifying audits of a round would have been accepted unreviewed."""
    with store.writing() as session:
        for query in session.exec(select(Query).where(Query.round_id == round_id, col(Query.item_key).in_(keys))):
            query.passes = True
            session.add(query)


def of_run(store: Store, run: str, promise: Promise) -> list[Certificate]:
    """All looks of a kind, oldest first."""
    query = select(Certificate).where(Certificate.run == run, Certificate.promise == promise)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Certificate.id))))


def audits(store: Store, run: str) -> list[Audit]:
    """The certifying audits of a run whose rationale was checked, by round and key; the released ones too."""
    query = (
        select(Query, Item, Rationale, Risk)
        .join(Round, col(Round.id) == Query.round_id)
        .join(Item, col(Item.key) == Query.item_key)
        .join(Rationale, (col(Rationale.round_id) == Query.round_id) & (col(Rationale.item_key) == Query.item_key))
        .join(Risk, col(Risk.rationale_id) == Rationale.id)
        .where(Round.run == run, col(Query.certify), FIRST)
        .order_by(col(Query.round_id), col(Query.item_key))
    )
    with store.reading() as session:
        rows = list(session.exec(query))
        held = {(each.round_id, each.item_key) for each in held_back(session, run)}
    said = verdicts(store, [rationale.id or 0 for _, _, rationale, _ in rows])
    return [
        Audit(asked, item, rationale, risk.value, tuple(said.get(rationale.id or 0, ())), _key(asked) in held)
        for asked, item, rationale, risk in rows
    ]


def held_back(session: Session, run: str) -> list[Query]:
    """Certifying queries of a run that nothing was decided about in their round."""
    query = select(Query).join(Round, col(Round.id) == Query.round_id).where(*held_in(run))
    return list(session.exec(query))


def held_in(run: str) -> tuple[Any, ...]:
    """The same as conditions on queries and their rounds."""
    same_round = col(Decision.round_id) + 0 == Query.round_id  # the sum: SQLite is to look up the item, not the round
    decided = select(Decision.id).where(Decision.item_key == Query.item_key, same_round)
    return Round.run == run, col(Query.certify), ~decided.exists()


def _key(query: Query) -> tuple[int, str]:
    return query.round_id, query.item_key
