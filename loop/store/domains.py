"""Domains that have a budget of their own."""

from sqlmodel import Session, col, func, select

from loop.config import BudgetConfig
from loop.ledger import to_micro
from loop.records import Balance, Charge, Currency


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
