"""Looking through the items of a run, a page at a time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, func, select

from loop.records import Decision, DecisionKind, Flag, Item, Rationale, Risk, Round, Split
from loop.store.database import Store
from loop.store.rationales import FIRST

SHOWN = 200
"""Characters of a question in a list."""


@dataclass(frozen=True)
class Wanted:
    """Which items: those with this text in key or question, this decision in force, domain, and a flag, after a key."""

    text: str = ""
    decision: DecisionKind | None = None
    domain: str = ""
    flagged: bool = False
    after: str = ""


@dataclass(frozen=True)
class Found:
    """An item in a list, with what the run made of it last."""

    key: str
    question: str
    domain: str
    split: Split
    decision: DecisionKind | None
    certified: bool
    risk: float | None
    flags: int


def found(store: Store, run: str, wanted: Wanted, size: int, lapsed: Collection[int] = ()) -> list[Found]:
    """The first so many items that are wanted, by key; in `lapsed` rounds, by id, no threshold certifies rows."""
    query = select(Item.key, func.substr(Item.question, 1, SHOWN), Item.domain, Item.split)
    query = query.where(*_conditions(run, wanted)).order_by(col(Item.key)).limit(size)
    with store.reading() as session:
        rows = list(session.exec(query))
        keys = [row[0] for row in rows]
        decided, risks, flags = (
            _decided(session, run, keys, lapsed),
            _risks(session, run, keys),
            _flags(session, run, keys),
        )
    return [
        Found(
            key=key,
            question=question,
            domain=domain,
            split=Split(split),
            decision=decided[key][0] if key in decided else None,
            certified=key in decided and decided[key][1],
            risk=risks.get(key),
            flags=flags.get(key, 0),
        )
        for key, question, domain, split in rows
    ]


def domains(store: Store, most: int) -> list[str]:
    """The first so many domains by name."""
    with store.reading() as session:
        return list(session.exec(select(Item.domain).distinct().order_by(col(Item.domain)).limit(most)))


def _conditions(run: str, wanted: Wanted) -> list[Any]:
    conditions: list[Any] = [col(Item.key) > wanted.after] if wanted.after else []
    if wanted.text:
        conditions.append(
            col(Item.key).icontains(wanted.text, autoescape=True)
            | col(Item.question).icontains(wanted.text, autoescape=True)
        )
    if wanted.domain:
        conditions.append(Item.domain == wanted.domain)
    if wanted.decision is not None:
        kind = select(Decision.item_key).where(col(Decision.id).in_(_newest(run)), Decision.kind == wanted.decision)
        conditions.append(col(Item.key).in_(kind))
    if wanted.flagged:
        doubted = (
            select(Rationale.item_key)
            .join(Round, col(Round.id) == Rationale.round_id)
            .where(Round.run == run, FIRST, col(Rationale.id).in_(select(Flag.rationale_id)))
        )
        conditions.append(col(Item.key).in_(doubted))
    return conditions


def _newest(run: str, *conditions: Any) -> Any:
    return select(func.max(Decision.id)).where(Decision.run == run, *conditions).group_by(col(Decision.item_key))


def _decided(
    session: Session, run: str, keys: Sequence[str], lapsed: Collection[int]
) -> dict[str, tuple[DecisionKind, bool]]:
    newest = _newest(run, col(Decision.item_key).in_(keys))
    rows = session.exec(select(Decision).where(col(Decision.id).in_(newest)))
    return {row.item_key: (row.kind, row.certified and row.round_id not in lapsed) for row in rows}


def _risks(session: Session, run: str, keys: Sequence[str]) -> dict[str, float]:
    """The risk of the teacher's last first rationale of each item."""
    query = (
        select(Rationale.item_key, Risk.value)
        .join(Risk, col(Risk.rationale_id) == Rationale.id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, FIRST, col(Rationale.item_key).in_(keys))
    )
    return dict(session.exec(query.order_by(col(Rationale.id))).all())


def _flags(session: Session, run: str, keys: Sequence[str]) -> dict[str, int]:
    query = (
        select(Rationale.item_key, func.count())
        .join(Flag, col(Flag.rationale_id) == Rationale.id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, FIRST, col(Rationale.item_key).in_(keys))
        .group_by(col(Rationale.item_key))
    )
    return dict(session.exec(query).all())
