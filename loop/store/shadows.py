"""Shadow students in the store: what they were trained on and what they got right."""

from collections import defaultdict

from sqlmodel import col, select

from loop.records import Round, Shadow
from loop.store.database import Store, values


def keep(store: Store, shadow: Shadow) -> None:
    """Store a shadow student's results."""
    with store.writing() as session:
        session.add(shadow)


def keep_reason(store: Store, round_id: int, why: str) -> None:
    """Store why a round did not measure what selection saves; nothing where it did."""
    with store.writing() as session:
        session.execute(values(Round, col(Round.id) == round_id).values(unmeasured=why))


def of_round(store: Store, round_id: int) -> list[Shadow]:
    """The shadow students of a round."""
    with store.reading() as session:
        return list(session.exec(select(Shadow).where(Shadow.round_id == round_id).order_by(col(Shadow.id))))


def of_run(store: Store, run: str) -> dict[int, list[Shadow]]:
    """The shadow students of a run by the number of their round."""
    query = select(Round.number, Shadow).join(Shadow, col(Shadow.round_id) == Round.id).where(Round.run == run)
    found: defaultdict[int, list[Shadow]] = defaultdict(list)
    with store.reading() as session:
        for number, shadow in session.exec(query.order_by(col(Shadow.id))):
            found[number].append(shadow)
    return dict(found)
