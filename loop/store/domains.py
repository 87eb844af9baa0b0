"""Domains: which have spent a budget of their own, what went wrong in each, and what was picked of it."""

from collections import Counter
from typing import Any

from sqlalchemy import case
from sqlmodel import Session, col, func, select

from loop.config import BudgetConfig
from loop.ledger import to_micro
from loop.records import Balance, Charge, Currency, Decision, DecisionKind, Item, Part, Prediction, Query, Rationale
from loop.store.database import Store
from loop.store.rationales import FIRST


def spent_domains(session: Session, run: str, budget: BudgetConfig) -> set[str]:
    """Domains whose own budget leaves less than the cheapest request for an item of theirs has held so far."""
    if not budget.domains:
        return set()
    of_run = (
        *(col(Charge.run) == run, col(Charge.currency) == Currency.USD, col(Charge.purpose).startswith("ask/")),
        col(Charge.reserved) > 0,  # a remembered reply cost nothing
    )
    cheapest = dict(
        session.exec(select(Charge.domain, func.min(Charge.reserved)).where(*of_run).group_by(col(Charge.domain))).all()
    )
    counters = select(Balance.scope, Balance.spent + Balance.reserved).where(
        col(Balance.run) == run, col(Balance.currency) == Currency.USD, col(Balance.scope).startswith("domain/")
    )
    used = dict(session.exec(counters).all())
    return {
        name
        for name, usd in budget.domains.items()
        if to_micro(usd) - used.get(f"domain/{name}", 0) < cheapest.get(name, 1)
    }


def student_errors(store: Store, checkpoint_id: int, part: Part) -> dict[str, tuple[int, int]]:
    """How many items of a part of the holdout a checkpoint answered wrong, and of how many, by domain."""
    wrong = func.sum(case((col(Prediction.correct), 0), else_=1))
    query = select(Item.domain, wrong, func.count()).join(Prediction, col(Prediction.item_key) == Item.key)
    of_it = query.where(Prediction.checkpoint_id == checkpoint_id, Prediction.part == part)
    return _counted(store, of_it.group_by(col(Item.domain)))


def teacher_errors(store: Store, run: str) -> dict[str, tuple[int, int]]:
    """Of how many items the teacher's first rationale did not stand as it was, and of how many that are decided."""
    newest = select(func.max(Decision.id)).where(Decision.run == run).group_by(col(Decision.item_key))
    stood = FIRST & col(Decision.kind).in_([DecisionKind.GOLD, DecisionKind.SILVER])
    query = (
        select(Item.domain, func.sum(case((stood, 0), else_=1)), func.count())
        .select_from(Decision)
        .join(Item, col(Item.key) == Decision.item_key)
        .outerjoin(Rationale, col(Rationale.id) == Decision.rationale_id)
        .where(col(Decision.id).in_(newest), Decision.kind != DecisionKind.UNDECIDED)
    )
    return _counted(store, query.group_by(col(Item.domain)))


def picked(store: Store, round_id: int) -> Counter[str]:
    """How many items of each domain a round picked, those of the control arm left out."""
    query = select(Item.domain, func.count()).join(Query, col(Query.item_key) == Item.key)
    of_it = query.where(Query.round_id == round_id, col(Query.probability).is_(None)).group_by(col(Item.domain))
    with store.reading() as session:
        return Counter(dict(session.exec(of_it).all()))


def _counted(store: Store, query: Any) -> dict[str, tuple[int, int]]:
    with store.reading() as session:
        return {name: (int(wrong), count) for name, wrong, count in session.exec(query)}
