"""Review tasks and verdicts in the store."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import tuple_
from sqlmodel import Session, col, func, select

from loop.errors import BudgetSpent
from loop.ledger import MICRO
from loop.records import (
    Charge,
    ChargeState,
    Currency,
    Item,
    Rationale,
    ReviewTask,
    Round,
    Verdict,
    WithdrawnVerdict,
    counted,
    own_uid,
)
from loop.store.database import Store, now
from loop.store.money import Purse

VERSION = tuple_(col(Verdict.board), col(Verdict.project), col(Verdict.annotation), col(Verdict.updated_at))
WITHDRAWN = select(
    WithdrawnVerdict.board, WithdrawnVerdict.project, WithdrawnVerdict.annotation, WithdrawnVerdict.updated_at
)
"""The versions of verdicts that a recall withdrew. Older ones do not take the place of a newest that is among them."""


@dataclass(frozen=True)
class Wanted:
    """A review that should be made, in which slot, and why. `uid` is what the board knows it by."""

    rationale: Rationale
    reason: str
    uid: str
    slot: int = 0
    unflagged: bool = False


def open_tasks(store: Store, run: str, round_id: int, wanted: Sequence[Wanted], minutes_each: int) -> list[ReviewTask]:
    """Open review tasks, each with its minutes reserved, until the minutes are spent.

    Tasks that are open already are left alone. Returns the tasks that were opened now.
    """
    known = {(task.rationale_id, task.slot) for task in tasks(store, round_id)}
    purse = Purse(store, run)
    opened: list[ReviewTask] = []
    for each in wanted:
        if each.rationale.id is None or (each.rationale.id, each.slot) in known:
            continue
        task = ReviewTask(
            rationale_id=each.rationale.id, slot=each.slot, round_id=round_id, uid=each.uid, reason=each.reason,
            unflagged=each.unflagged,
        )  # fmt: skip
        try:
            with store.writing() as session:
                task.charge_id = purse.reserve_in(session, Currency.MINUTES, f"review/{each.uid}", minutes_each)
                session.add(task)
        except BudgetSpent:
            break
        opened.append(task)
    return opened


def tasks(store: Store, round_id: int) -> list[ReviewTask]:
    """The review tasks of a round by rationale."""
    with store.reading() as session:
        query = select(ReviewTask).where(ReviewTask.round_id == round_id)
        return list(session.exec(query.order_by(col(ReviewTask.rationale_id), col(ReviewTask.slot))))


def pending(store: Store, round_id: int) -> list[tuple[ReviewTask, Rationale, Item]]:
    """Tasks without a verdict that counts, with rationale and item; their order says nothing of them.

    One whose verdict was withdrawn is done all the same: what is reviewed again has a task of its own.
    """
    query = (
        select(ReviewTask, Rationale, Item)
        .join(Rationale, col(Rationale.id) == ReviewTask.rationale_id)
        .join(Item, col(Item.key) == Rationale.item_key)
        .where(ReviewTask.round_id == round_id)
    )
    answered = {
        (number, verdict.slot) for number, given in readable(store, round_id).items() for verdict in counted(given)
    }
    with store.reading() as session:
        withdrawn = session.exec(select(Verdict.rationale_id, Verdict.slot).where(VERSION.in_(WITHDRAWN)))
        answered |= {(number or 0, slot) for number, slot in withdrawn}
        found = [
            (open_task, rationale, item)
            for open_task, rationale, item in session.exec(query)
            if (open_task.rationale_id, open_task.slot) not in answered
        ]
    return sorted(found, key=lambda each: hashlib.sha256(each[0].uid.encode()).digest())


def readable(store: Store, round_id: int) -> dict[int, list[Verdict]]:
    """The newest readable version of each annotation on what a round sent to review, by rationale; none withdrawn."""
    sent = select(ReviewTask.rationale_id).where(ReviewTask.round_id == round_id)
    query = select(Verdict).where(col(Verdict.rationale_id).in_(sent), col(Verdict.kind).is_not(None))
    newest: defaultdict[int, dict[tuple[str, str, str], Verdict]] = defaultdict(dict)
    with store.reading() as session:
        withdrawn = set(session.exec(WITHDRAWN))
        for verdict in session.exec(query.order_by(col(Verdict.updated_at))):
            key = (verdict.board, verdict.project, verdict.annotation)
            newest[verdict.rationale_id or 0].pop(key, None)
            if (*key, verdict.updated_at) not in withdrawn:
                newest[verdict.rationale_id or 0][key] = verdict
    return {number: list(given.values()) for number, given in newest.items()}


def verdicts(store: Store, rationale_ids: Sequence[int]) -> dict[int, list[Verdict]]:
    """The newest version of each annotation that counts, by rationale."""
    newest = select(Verdict.board, Verdict.project, Verdict.annotation, func.max(Verdict.updated_at)).group_by(
        col(Verdict.board), col(Verdict.project), col(Verdict.annotation)
    )
    query = select(Verdict).where(
        col(Verdict.rationale_id).in_(rationale_ids), VERSION.in_(newest), VERSION.not_in(WITHDRAWN)
    )
    found: defaultdict[int, list[Verdict]] = defaultdict(list)
    with store.reading() as session:
        for verdict in session.exec(query.order_by(col(Verdict.annotation))):
            assert verdict.rationale_id is not None
            found[verdict.rationale_id].append(verdict)
    return dict(found)


def versions(store: Store, run: str) -> list[Verdict]:
    """Every version of every verdict of a run, planted and withdrawn ones too, in the order of submission."""
    query = (
        select(Verdict)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run)
    )
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Verdict.updated_at), col(Verdict.annotation))))


def release_open(store: Store, round_id: int) -> None:
    """Give back the minutes of tasks that got no verdict."""
    waiting = [task.charge_id for task, _, _ in pending(store, round_id)]
    with store.writing() as session:
        for charge_id in waiting:
            charge = session.get(Charge, charge_id)
            if charge is not None and charge.state is ChargeState.RESERVED and charge.id is not None:
                Purse(store, charge.run).release_in(session, charge.id)


class RunReviewBook:
    """The desk's book (`loop.ports.ReviewBook`)."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._purse = Purse(store, run)

    def mark_pushed(self, uid: str, *, board: str, project: str, task: str) -> None:
        """Note under which ids a task stands on the board."""
        with self._store.writing() as session:
            row = session.exec(select(ReviewTask).where(ReviewTask.uid == uid)).one()
            row.board, row.project, row.task, row.pushed_at = board, project, task, now()
            session.add(row)

    def watermark(self, board: str, project: str) -> str | None:
        """The newest `updated_at` stored for this project."""
        with self._store.reading() as session:
            query = select(func.max(Verdict.updated_at)).where(Verdict.board == board, Verdict.project == project)
            return session.exec(query).one()

    def reviewed(self, uid: str) -> tuple[ReviewTask, Rationale, Item] | None:
        """The task of a uid with its rationale and item, whichever of its copies on the board is meant."""
        query = (
            select(ReviewTask, Rationale, Item)
            .join(Rationale, col(Rationale.id) == ReviewTask.rationale_id)
            .join(Item, col(Item.key) == Rationale.item_key)
            .where(ReviewTask.uid == own_uid(uid))
        )
        with self._store.reading() as session:
            found = session.exec(query).first()
        return None if found is None else (found[0], found[1], found[2])

    def queue(self, round_id: int) -> list[tuple[ReviewTask, Rationale]]:
        """All tasks of a round with their rationales, judged or not."""
        query = select(ReviewTask, Rationale).join(Rationale, col(Rationale.id) == ReviewTask.rationale_id)
        query = query.where(ReviewTask.round_id == round_id)
        with self._store.reading() as session:
            return [(task, rationale) for task, rationale in session.exec(query.order_by(col(ReviewTask.uid)))]

    def given(self, round_id: int) -> dict[int, list[Verdict]]:
        """Every readable verdict on the rationales of a round, by rationale; each annotation once."""
        return readable(self._store, round_id)

    def keep_queued(self, task: ReviewTask) -> None:
        """Store whose a task is, since when, and its place in the queue."""
        with self._store.writing() as session:
            row = session.exec(select(ReviewTask).where(ReviewTask.uid == task.uid)).one()
            row.assignee, row.assigned_at, row.place = task.assignee, task.assigned_at, task.place
            session.add(row)

    def slots(self) -> list[int]:
        """The slots in which the run ever opened a task."""
        query = select(ReviewTask.slot).join(Round, col(Round.id) == ReviewTask.round_id).where(Round.run == self._run)
        with self._store.reading() as session:
            return sorted(set(session.exec(query)))

    def keep_verdict(self, verdict: Verdict) -> bool:
        """Store a verdict and settle its task's minutes; False where this version is stored already."""
        key = (verdict.board, verdict.project, verdict.annotation, verdict.updated_at)
        with self._store.writing() as session:
            if session.get(Verdict, key) is not None:
                return False
            session.add(verdict)
            self._settle(session, verdict)
        return True

    def _settle(self, session: Session, verdict: Verdict) -> None:
        """Settle the minutes of the task with its first verdict; later versions change nothing."""
        task = session.get(ReviewTask, (verdict.rationale_id, verdict.slot)) if verdict.rationale_id else None
        charge = None if task is None or task.charge_id is None else session.get(Charge, task.charge_id)
        if charge is not None and charge.id is not None and charge.state is ChargeState.RESERVED:
            self._purse.settle_in(session, charge.id, round(max(0.0, verdict.seconds) / 60 * MICRO))
