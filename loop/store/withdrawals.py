"""Recalls in the store: which verdicts no longer count, which decisions rested on them, what is reviewed again."""

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import datetime

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
    role,
)
from loop.store.database import Store, now
from loop.store.pieces import pieces
from loop.store.rationales import REAL
from loop.store.reviews import VERSION, WITHDRAWN
from loop.store.tainted import Grounds, Touched, closed_by_replies, parents_of, reviewed, touched_in

WITHDRAWN_AS = (
    (col(Verdict.board) == WithdrawnVerdict.board)
    & (col(Verdict.project) == WithdrawnVerdict.project)
    & (col(Verdict.annotation) == WithdrawnVerdict.annotation)
    & (col(Verdict.updated_at) == WithdrawnVerdict.updated_at)
)


def withdraw(store: Store, run: str, grounds: Grounds, reason: str) -> Touched:
    """Let what is doubted count no longer, and put the decisions that rest on it back to undecided.

    A reviewer's verdicts are withdrawn, and the items reviewed again. Of doubted replies what reviewers said of them
    stays said, but decides nothing any more; the items may be asked again.
    """
    with store.writing() as session:
        found = touched_in(session, run, grounds)
        row = Withdrawal(
            run=run, reviewer=grounds.reviewer, teacher_model=grounds.teacher_model, prompt_hash=grounds.prompt,
            since=grounds.since, reason=reason, withdrawn_at=now(),
        )  # fmt: skip
        session.add(row)
        session.flush()
        assert row.id is not None
        for each in found.verdicts:
            key = {name: getattr(each, name) for name in ("board", "project", "annotation", "updated_at")}
            session.add(WithdrawnVerdict(**key, withdrawal_id=row.id))
        parents, said_of = parents_of(session), {each.rationale_id for each in found.verdicts}
        for decision in found.decisions:
            about = reviewed(decision.rationale_id, parents, said_of) if grounds.reviewer else decision.rationale_id
            _reopen(session, decision, row, about)
        session.add_all(Reopened(decision_id=each.id or 0, withdrawal_id=row.id) for each in found.earlier)
    return found


def of_run(store: Store, run: str) -> list[tuple[Withdrawal, int, int]]:
    """The recalls of a run, oldest first, each with the number of verdicts it withdrew and of decisions it put back."""
    with store.reading() as session:
        rows = session.exec(select(Withdrawal).where(Withdrawal.run == run).order_by(col(Withdrawal.id)))
        withdrawn = Counter(session.exec(select(WithdrawnVerdict.withdrawal_id)))
        reopened = Counter(
            session.exec(
                select(Reopened.withdrawal_id)
                .join(Withdrawal, col(Withdrawal.id) == Reopened.withdrawal_id)
                .join(Decision, col(Decision.id) == Reopened.decision_id)
                .where(Decision.decided_at == Withdrawal.withdrawn_at)
            )
        )
        return [(row, withdrawn[row.id or 0], reopened[row.id or 0]) for row in rows]


def of_replies(store: Store, run: str) -> set[tuple[int, str]]:
    """The rounds and items whose replies a recall doubted: nothing is decided by them any more."""
    with store.reading() as session:
        return set(session.exec(closed_by_replies(run)))


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


def last_on_audits(store: Store, run: str, until: datetime | None = None) -> datetime | None:
    """When verdicts on certifying audits were last withdrawn (by then), if ever."""
    query = (
        select(func.max(Withdrawal.withdrawn_at))
        .join(WithdrawnVerdict, col(WithdrawnVerdict.withdrawal_id) == Withdrawal.id)
        .join(Verdict, WITHDRAWN_AS)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Query, (col(Query.round_id) == Rationale.round_id) & (col(Query.item_key) == Rationale.item_key))
        .where(Withdrawal.run == run, col(Query.certify), REAL)
    )
    if until is not None:
        query = query.where(Withdrawal.withdrawn_at <= until)
    with store.reading() as session:
        return session.exec(query).one()


def with_queries(store: Store, decisions: Collection[Decision]) -> dict[str, tuple[Query, Rationale]]:
    """The query and the rationale of each of these decisions, by item key."""
    query = select(Query, Rationale).join(
        Rationale, (col(Rationale.round_id) == Query.round_id) & (col(Rationale.item_key) == Query.item_key)
    )
    with store.reading() as session:
        return {
            asked.item_key: (asked, rationale)
            for some in pieces(each.rationale_id for each in decisions if each.rationale_id is not None)
            for asked, rationale in session.exec(query.where(col(Rationale.id).in_(some)))
        }


def _judged(session: Session, run: str, condition: ColumnElement[bool]) -> set[tuple[int | None, int]]:
    """Rationale and slot of those interpreted verdicts of a run."""
    query = (
        select(Verdict.rationale_id, Verdict.slot)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, col(Verdict.kind).is_not(None), condition)
    )
    return {(number, slot) for number, slot in session.exec(query)}


def _reopen(session: Session, decision: Decision, row: Withdrawal, reviewed: int | None) -> None:
    """Supersede a decision by an undecided one about the rationale that is doubted, or was reviewed."""
    undecided = Decision(
        run=decision.run,
        item_key=decision.item_key,
        round_id=decision.round_id,
        rationale_id=reviewed,
        kind=DecisionKind.UNDECIDED,
        reason=f"recall {row.id}: {doubted_text(row)} no longer counts ({row.reason})",
        version=decision.version + 1,
        supersedes=decision.id,
        decided_at=row.withdrawn_at,
    )
    session.add(undecided)
    session.flush()
    assert undecided.id is not None
    assert row.id is not None
    session.add(Reopened(decision_id=undecided.id, withdrawal_id=row.id))


def doubted_text(row: Withdrawal) -> str:
    """What a recall takes back, in words."""
    since = "" if row.since is None else f" since {row.since:%Y-%m-%d}"
    replies = f"{row.teacher_model} replied" if row.teacher_model else "the teacher replied" if row.prompt_hash else ""
    replies += f" to prompt {row.prompt_hash[:12]}" if row.prompt_hash else ""
    if row.reviewer:
        return "what a reviewer said" + (f" of what {replies}" if replies else "") + since
    return f"what {replies or 'was decided'}{since}"


def _awaiting(session: Session, run: str) -> dict[str, Decision]:
    newest = select(func.max(Decision.id)).where(Decision.run == run).group_by(col(Decision.item_key))
    query = (
        select(Decision)
        .join(Reopened, col(Reopened.decision_id) == Decision.id)
        .join(Withdrawal, col(Withdrawal.id) == Reopened.withdrawal_id)
        .where(col(Decision.id).in_(newest), Withdrawal.reviewer != "")
        .order_by(col(Decision.item_key))
    )
    rows = session.exec(query)
    return {row.item_key: row for row in rows}
