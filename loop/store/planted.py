"""Planted rationales in the store: what they are made from, and what checks and reviewers said of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import col, func, select

from loop.records import CONTROL, Decision, DecisionKind, Rationale, Risk, Round, Split, Verdict
from loop.store import decisions, reading, reviews
from loop.store.database import Store
from loop.store.rationales import REAL

ACCEPTED = (DecisionKind.GOLD, DecisionKind.SILVER)


@dataclass(frozen=True)
class Shown:
    """A planted rationale with its risk and the verdicts on it, each annotation in its newest version."""

    rationale: Rationale
    risk: float | None
    verdicts: Sequence[Verdict]

    @property
    def is_control(self) -> bool:
        """Whether it was shown as it was, without an error."""
        return self.rationale.planted == CONTROL


def good(store: Store, run: str) -> list[tuple[Rationale, bool, int]]:
    """The teacher's rationales on pool items that people accepted as they stand; whether audited, how often used.

    A corrected one is not in the teacher's words, which would tell it from the others on the board.
    """
    asked = {(query.round_id, query.item_key): query for query in reading.queries_of(store, run)}
    used = Counter(each.planted_from for each in _of_run(store, run))
    return [
        (rationale, asked[rationale.round_id, item.key].audit, used[rationale.id])
        for item, rationale, decision in decisions.decided(store, run)
        if decision.kind is DecisionKind.GOLD
        and rationale.is_reply
        and item.split is Split.POOL
        and (rationale.round_id, item.key) in asked  # queries that are held back for a certificate are left out here
    ]


def of_round(store: Store, round_id: int) -> list[Rationale]:
    """The planted rationales of a round, in the order in which they were drawn."""
    query = select(Rationale).where(Rationale.round_id == round_id, ~REAL, col(Rationale.supersedes).is_(None))
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Rationale.id))))


def keep(store: Store, rows: Sequence[Rationale]) -> None:
    """Store the planted rationales of a round."""
    with store.writing() as session:
        session.add_all(rows)


def shown(store: Store, run: str) -> list[Shown]:
    """Every planted rationale of a run with what was said of it.

    Controls whose item a recall made doubtful are left out: nobody knows any more that they are right.
    """
    controls = select(Rationale.item_key).where(Rationale.planted == CONTROL)
    newest = (
        select(func.max(Decision.id))
        .where(Decision.run == run, col(Decision.item_key).in_(controls))
        .group_by(col(Decision.item_key))
    )
    open_again = select(Decision.item_key).where(col(Decision.id).in_(newest), col(Decision.kind).not_in(ACCEPTED))
    with store.reading() as session:
        doubtful = set(session.exec(open_again))
    rows = [each for each in _of_run(store, run) if each.planted != CONTROL or each.item_key not in doubtful]
    ids = [each.id for each in rows if each.id is not None]
    given = reviews.verdicts(store, ids)
    with store.reading() as session:
        risks = dict(session.exec(select(Risk.rationale_id, Risk.value).where(col(Risk.rationale_id).in_(ids))).all())
    return [Shown(each, risks.get(each.id or 0), given.get(each.id or 0, [])) for each in rows]


def wrong_steps(store: Store, run: str) -> dict[str, list[str]]:
    """The steps with planted errors by item, for who must know the truth: the simulated reviewer."""
    rows = [each for each in _of_run(store, run) if each.planted != CONTROL]
    with store.reading() as session:
        query = select(Rationale.id, Rationale.steps).where(col(Rationale.id).in_([each.planted_from for each in rows]))
        before = dict(session.exec(query).all())
    found: dict[str, list[str]] = {}
    for each in rows:
        right = before[each.planted_from]
        found.setdefault(each.item_key, []).extend(step for step in each.steps if step not in right)
    return found


def _of_run(store: Store, run: str) -> list[Rationale]:
    query = select(Rationale).join(Round, col(Round.id) == Rationale.round_id)
    query = query.where(Round.run == run, ~REAL, col(Rationale.supersedes).is_(None))
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Rationale.id))))
