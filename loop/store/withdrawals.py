"""Recalls in the store: which verdicts no longer count, which decisions rested on them, what is reviewed again."""

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from loop.records import (
    Decision,
    DecisionKind,
    Query,
    Rationale,
    Reopened,
    ReviewTask,
    Round,
    Verdict,
    Withdrawal,
    WithdrawnVerdict,
    deciding,
    role,
)
from loop.store.database import Store, now
from loop.store.rationales import REAL
from loop.store.reviews import VERSION, WITHDRAWN

WITHDRAWN_AS = (
    (col(Verdict.board) == WithdrawnVerdict.board)
    & (col(Verdict.project) == WithdrawnVerdict.project)
    & (col(Verdict.annotation) == WithdrawnVerdict.annotation)
    & (col(Verdict.updated_at) == WithdrawnVerdict.updated_at)
)


@dataclass(frozen=True)
class Touched:
    """What a recall takes back."""

    verdicts: tuple[Verdict, ...]
    """Every version since the moment; only the newest of each annotation counted before."""
    decisions: tuple[Decision, ...]
    """Those in force that rested on them."""
    open_items: tuple[str, ...]
    """Items with such verdicts about which nothing is decided yet: held back, or still in review."""


def touched(store: Store, run: str, reviewer: str, since: datetime) -> Touched:
    """What a reviewer said since a moment and still counts, and what rests on it."""
    with store.reading() as session:
        return _touched(session, run, reviewer, since)


def withdraw(store: Store, run: str, reviewer: str, since: datetime, reason: str) -> Touched:
    """Let what a reviewer said since a moment count no longer, and put what rested on it back to undecided."""
    with store.writing() as session:
        found = _touched(session, run, reviewer, since)
        row = Withdrawal(run=run, reviewer=reviewer, since=since, reason=reason, withdrawn_at=now())
        session.add(row)
        session.flush()
        assert row.id is not None
        for each in found.verdicts:
            key = {name: getattr(each, name) for name in ("board", "project", "annotation", "updated_at")}
            session.add(WithdrawnVerdict(**key, withdrawal_id=row.id))
        parents, said_of = _parents(session), {each.rationale_id for each in found.verdicts}
        for decision in found.decisions:
            _reopen(session, decision, row, _reviewed(decision.rationale_id, parents, said_of))
    return found


def of_run(store: Store, run: str) -> list[tuple[Withdrawal, int]]:
    """The recalls of a run, oldest first, each with the number of verdicts that it withdrew."""
    with store.reading() as session:
        rows = session.exec(select(Withdrawal).where(Withdrawal.run == run).order_by(col(Withdrawal.id)))
        withdrawn = list(session.exec(select(WithdrawnVerdict.withdrawal_id)))
        return [(row, withdrawn.count(row.id or 0)) for row in rows]


def reasons(store: Store, verdicts: Iterable[Verdict]) -> dict[tuple[str, str, str, str], Withdrawal]:
    """The recall that withdrew each of these verdicts, by the verdict's key; those that count are left out."""
    keys = [(each.board, each.project, each.annotation, each.updated_at) for each in verdicts]
    query = select(WithdrawnVerdict, Withdrawal).join(
        Withdrawal, col(Withdrawal.id) == WithdrawnVerdict.withdrawal_id
    )  # fmt: skip
    with store.reading() as session:
        rows = {(row.board, row.project, row.annotation, row.updated_at): why for row, why in session.exec(query)}
    return {key: rows[key] for key in keys if key in rows}


def awaiting(store: Store, run: str) -> dict[str, Decision]:
    """The decisions in force that a recall put back to undecided, by item key."""
    with store.reading() as session:
        return _awaiting(session, run)


def awaiting_in(session: Session, run: str) -> Collection[str]:
    """As `awaiting`, the keys alone, within a transaction."""
    return _awaiting(session, run).keys()


def to_review_again(store: Store, run: str) -> list[tuple[Rationale, ReviewTask]]:
    """Reviews whose verdicts were all withdrawn, where nothing was decided since; each with its newest task.

    Planted rationales measure the reviewer that saw them; they are not shown again.
    """
    with store.reading() as session:
        open_again = {row.rationale_id for row in _awaiting(session, run).values()}
        withdrawn = _judged(session, run, VERSION.in_(WITHDRAWN))
        counting = {(number, role(slot)) for number, slot in _judged(session, run, VERSION.not_in(WITHDRAWN))}
        decided = set(session.exec(select(Decision.round_id, Decision.item_key).where(Decision.run == run)))
        query = (
            select(Rationale, ReviewTask)
            .join(ReviewTask, col(ReviewTask.rationale_id) == Rationale.id)
            .join(Round, col(Round.id) == Rationale.round_id)
            .where(Round.run == run, REAL)
            .order_by(col(Rationale.id), col(ReviewTask.slot))
        )
        newest = {(each.id, role(task.slot)): (each, task) for each, task in session.exec(query)}
    return [
        (rationale, task)
        for rationale, task in newest.values()
        if (rationale.id in open_again or (rationale.round_id, rationale.item_key) not in decided)
        and (rationale.id, task.slot) in withdrawn
        and (rationale.id, role(task.slot)) not in counting
    ]


def last_on_audits(store: Store, run: str) -> datetime | None:
    """When verdicts on certifying audits were last withdrawn, if ever."""
    query = (
        select(func.max(Withdrawal.withdrawn_at))
        .join(WithdrawnVerdict, col(WithdrawnVerdict.withdrawal_id) == Withdrawal.id)
        .join(Verdict, WITHDRAWN_AS)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Query, (col(Query.round_id) == Rationale.round_id) & (col(Query.item_key) == Rationale.item_key))
        .where(Withdrawal.run == run, col(Query.certify), REAL)
    )
    with store.reading() as session:
        return session.exec(query).one()


def with_queries(store: Store, decisions: Collection[Decision]) -> dict[str, tuple[Query, Rationale]]:
    """The query and the rationale of each of these decisions, by item key."""
    numbers = [each.rationale_id for each in decisions]
    query = (
        select(Query, Rationale)
        .join(Rationale, (col(Rationale.round_id) == Query.round_id) & (col(Rationale.item_key) == Query.item_key))
        .where(col(Rationale.id).in_(numbers))
    )
    with store.reading() as session:
        return {asked.item_key: (asked, rationale) for asked, rationale in session.exec(query)}


def _judged(session: Session, run: str, condition: ColumnElement[bool]) -> set[tuple[int | None, int]]:
    """Rationale and slot of those interpreted verdicts of a run."""
    query = (
        select(Verdict.rationale_id, Verdict.slot)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, col(Verdict.kind).is_not(None), condition)
    )
    return {(number, slot) for number, slot in session.exec(query)}


def _touched(session: Session, run: str, reviewer: str, since: datetime) -> Touched:
    query = (
        select(Verdict, Rationale)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, VERSION.not_in(WITHDRAWN))
        .order_by(col(Verdict.updated_at), col(Verdict.annotation))
    )
    rows = list(session.exec(query))
    start = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    taken = [each for each, _ in rows if each.reviewer == reviewer and each.updated_at >= start]
    newest: defaultdict[int, dict[tuple[str, str, str], Verdict]] = defaultdict(dict)
    for each, _ in rows:
        newest[each.rationale_id or 0][each.board, each.project, each.annotation] = each
    rested = {
        number for number, said in newest.items() if any(each in taken for each in deciding(said.values()))
    }  # fmt: skip
    about = {each.id or 0: each for _, each in rows if each.id in rested and not each.planted}
    known_since = {
        number: min(each.pulled_at for each, _ in rows if each.rationale_id == number and each.reviewer == reviewer)
        for number in about
    }
    decided = set(session.exec(select(Decision.round_id, Decision.item_key).where(Decision.run == run)))
    waiting = {each.item_key for each in about.values() if (each.round_id, each.item_key) not in decided}
    return Touched(tuple(taken), tuple(_resting(session, run, known_since)), tuple(sorted(waiting)))


def _resting(session: Session, run: str, known_since: Mapping[int, datetime]) -> list[Decision]:
    """The decisions in force about these rationales, or corrections of them, that were made when the verdict was known.

    What was accepted unreviewed rests on no verdict.
    """
    parents = _parents(session)
    found = []
    for row in _newest(session, run).values():
        since = known_since.get(_reviewed(row.rationale_id, parents, known_since) or 0)
        if since is not None and row.decided_at >= since and row.kind is not DecisionKind.SILVER:
            found.append(row)
    return found


def _newest(session: Session, run: str) -> dict[str, Decision]:
    rows = session.exec(select(Decision).where(Decision.run == run).order_by(col(Decision.id)))
    return {row.item_key: row for row in rows}


def _parents(session: Session) -> dict[int | None, int | None]:
    query = select(Rationale.id, Rationale.supersedes).where(col(Rationale.supersedes).is_not(None))
    return dict(session.exec(query).all())


def _reviewed(
    number: int | None, parents: Mapping[int | None, int | None], said_of: Container[int | None]
) -> int | None:
    """The rationale itself or the nearest one before it of which the reviewer said something."""
    while number is not None and number not in said_of:
        number = parents.get(number)
    return number


def _reopen(session: Session, decision: Decision, row: Withdrawal, reviewed: int | None) -> None:
    """Supersede a decision by an undecided one about the rationale that was reviewed."""
    undecided = Decision(
        run=decision.run,
        item_key=decision.item_key,
        round_id=decision.round_id,
        rationale_id=reviewed,
        kind=DecisionKind.UNDECIDED,
        reason=f"recall {row.id}: what a reviewer said since {row.since:%Y-%m-%d} no longer counts ({row.reason})",
        version=decision.version + 1,
        supersedes=decision.id,
        decided_at=row.withdrawn_at,
    )
    session.add(undecided)
    session.flush()
    assert undecided.id is not None
    assert row.id is not None
    session.add(Reopened(decision_id=undecided.id, withdrawal_id=row.id))


def _awaiting(session: Session, run: str) -> dict[str, Decision]:
    newest = select(func.max(Decision.id)).where(Decision.run == run).group_by(col(Decision.item_key))
    query = select(Decision).join(Reopened, col(Reopened.decision_id) == Decision.id)
    rows = session.exec(query.where(col(Decision.id).in_(newest)).order_by(col(Decision.item_key)))
    return {row.item_key: row for row in rows}
