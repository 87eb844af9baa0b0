"""Review tasks and verdicts in the store."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, bindparam, tuple_, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, func, select

from loop.errors import BudgetSpent
from loop.ledger import MICRO
from loop.records import (
    Balance,
    Charge,
    ChargeState,
    Currency,
    Item,
    Listing,
    Rationale,
    ReviewTask,
    Round,
    Verdict,
    Withdrawal,
    WithdrawnVerdict,
    counted,
    once,
    own_uid,
)
from loop.store import forgetting
from loop.store.database import Store, add_missing, now, values
from loop.store.money import Purse
from loop.store.pieces import pieces

LATE = timedelta(minutes=10)
"""A request that was given up may still be carried out so much later."""
VERSION = tuple_(col(Verdict.board), col(Verdict.project), col(Verdict.annotation), col(Verdict.updated_at))
WITHDRAWN = select(
    WithdrawnVerdict.board, WithdrawnVerdict.project, WithdrawnVerdict.annotation, WithdrawnVerdict.updated_at
)
"""The versions of verdicts that a recall withdrew. Older ones do not take the place of a newest that is among them."""
STANDS = col(Verdict.deleted_at).is_(None)


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
    """The newest version of each annotation on what a round sent to review, where it can be read, by rationale.

    None that was deleted or withdrawn, and no older one in the place of one that cannot be read.
    """
    sent = select(ReviewTask.rationale_id).where(ReviewTask.round_id == round_id)
    query = select(Verdict).where(col(Verdict.rationale_id).in_(sent), STANDS)
    newest: defaultdict[int, dict[tuple[str, str, str], Verdict]] = defaultdict(dict)
    with store.reading() as session:
        withdrawn = set(session.exec(WITHDRAWN))
        for verdict in session.exec(query.order_by(col(Verdict.updated_at))):
            key = (verdict.board, verdict.project, verdict.annotation)
            newest[verdict.rationale_id or 0].pop(key, None)
            if (*key, verdict.updated_at) not in withdrawn:
                newest[verdict.rationale_id or 0][key] = verdict
    return {
        number: [verdict for verdict in given.values() if verdict.kind is not None] for number, given in newest.items()
    }


def verdicts(store: Store, rationale_ids: Sequence[int]) -> dict[int, list[Verdict]]:
    """The newest version of each annotation that counts, one of each reviewer in each slot, by rationale.

    Those that were deleted on the board or withdrawn do not count.
    """
    with store.reading() as session:
        query = verdicts_query()
        return {
            number: given
            for some in pieces(rationale_ids)
            for number, given in verdicts_in(session, some, query).items()
        }


def verdicts_in(session: Session, rationale_ids: Sequence[int], query: Any) -> dict[int, list[Verdict]]:
    """As `verdicts`, within a transaction; `query` is what `verdicts_query` made, for who asks again and again."""
    found: defaultdict[int, list[Verdict]] = defaultdict(list)
    for verdict in session.execute(query, {"ids": list(rationale_ids)}).scalars():
        found[verdict.rationale_id].append(verdict)
    return {number: sorted(once(given), key=lambda each: each.annotation) for number, given in found.items()}


def verdicts_query(until: datetime | None = None) -> Any:
    """The verdicts on the rationales `ids` that count, or that were there and counted at a moment."""
    newer = aliased(Verdict)
    superseded = select(newer.updated_at).where(
        newer.board == Verdict.board,
        newer.project == Verdict.project,
        newer.annotation == Verdict.annotation,
        col(newer.updated_at) > col(Verdict.updated_at),
    )
    withdrawn = WITHDRAWN
    conditions: list[ColumnElement[bool]] = [STANDS]
    if until is not None:
        superseded = superseded.where(col(newer.pulled_at) <= until)
        withdrawn = withdrawn.join(Withdrawal)
        withdrawn = withdrawn.where(col(Withdrawal.withdrawn_at) <= until)
        conditions = [STANDS | (col(Verdict.deleted_at) > until), col(Verdict.pulled_at) <= until]
    return select(Verdict).where(
        col(Verdict.rationale_id).in_(bindparam("ids")),
        ~superseded.exists(),
        VERSION.not_in(withdrawn),
        *conditions,
    )


def ever_judged(store: Store, run: str) -> set[int]:
    """The rationales of a run that somebody ever judged, whether the verdict still stands or not."""
    query = (
        select(Verdict.rationale_id)
        .join(ReviewTask, col(ReviewTask.rationale_id) == Verdict.rationale_id)
        .join(Round)
        .where(Round.run == run, col(Verdict.kind).is_not(None))
    )
    with store.reading() as session:
        return {number for number in session.exec(query.distinct()) if number is not None}


def pulled(store: Store) -> int:
    """How many versions of verdicts are stored: whether another process pulled some."""
    with store.reading() as session:
        return session.exec(select(func.count()).select_from(Verdict)).one()


def versions(store: Store, run: str) -> list[Verdict]:
    """Every version of every verdict of a run, planted and withdrawn ones too, in the order of submission."""
    query = select(Verdict).join(Rationale).join(Round).where(Round.run == run)
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

    def mark_pushed(self, placed: Mapping[str, str], *, board: str, project: str) -> None:
        """Note under which ids tasks stand on the board, by uid."""
        there = {"board": board, "project": project, "pushed_at": now()}
        self._set_tasks([{"of": uid, "task": number} | there for uid, number in placed.items()])

    def placed(self, board: str, project: str) -> set[str]:
        """The uids of the run's tasks that stand in a project as far as is known."""
        query = select(ReviewTask.uid).join(Round)
        query = query.where(Round.run == self._run, ReviewTask.board == board, ReviewTask.project == project)
        with self._store.reading() as session:
            return set(session.exec(query))

    def mark_gone(self, uids: Collection[str]) -> None:
        """Note that tasks no longer stand on the board: those without a verdict are to be pushed again."""
        nowhere = {"board": "", "project": "", "task": "", "pushed_at": None}
        with self._store.writing() as session:
            for some in pieces(uids):
                session.execute(values(ReviewTask, col(ReviewTask.uid).in_(some)).values(**nowhere))

    def listing_due(self, board: str, project: str) -> bool:
        """Whether the project is to be listed whole; one that never was is."""
        query = select(Listing).where(Listing.board == board, Listing.project == project, Listing.due_at > now())
        with self._store.reading() as session:
            return session.exec(query).first() is None

    def mark_listed(self, board: str, project: str, *, again: datetime) -> None:
        """Note that the project was listed whole, and when it is to be the next time."""
        with self._store.writing() as session:
            add_missing(session, Listing, board=board, project=project, due_at=again)
            session.execute(values(Listing, Listing.board == board, Listing.project == project).values(due_at=again))

    def doubt(self, board: str, project: str) -> None:
        """Have the project listed whole once a request that was given up would have been carried out."""
        if not self.listing_due(board, project):
            self.mark_listed(board, project, again=now() + LATE)

    def watermark(self, board: str, project: str) -> str | None:
        """The newest `updated_at` stored for this project."""
        with self._store.reading() as session:
            query = select(func.max(Verdict.updated_at)).where(Verdict.board == board, Verdict.project == project)
            return session.exec(query).one()

    def reviewed(self, uids: Collection[str]) -> dict[str, tuple[ReviewTask, Rationale, Item]]:
        """The tasks of those uids that are ours, with rationale and item, by their own uid, whichever copy is meant."""
        found: dict[str, tuple[ReviewTask, Rationale, Item]] = {}
        query = (
            select(ReviewTask, Rationale, Item)
            .join(Rationale, col(Rationale.id) == ReviewTask.rationale_id)
            .join(Item, col(Item.key) == Rationale.item_key)
        )
        with self._store.reading() as session:
            for some in pieces({own_uid(uid) for uid in uids}):
                for task, rationale, item in session.exec(query.where(col(ReviewTask.uid).in_(some))):
                    found[task.uid] = (task, rationale, item)
        return found

    def forgotten(self, uids: Collection[str]) -> set[str]:
        """Those of the uids that begin as the uid of a task about an item that was forgotten does."""
        named = {uid: set(accumulate(own_uid(uid).split("/")[2:], "{}/{}".format)) for uid in uids}
        gone = forgetting.forgotten(self._store, {key for keys in named.values() for key in keys}).keys()
        return {uid for uid, keys in named.items() if keys & gone}

    def queue(self, round_id: int, *, but: Set[str] = frozenset()) -> list[tuple[ReviewTask, Rationale]]:
        """The tasks of a round with their rationales, judged or not, but for those of some uids."""
        query = select(ReviewTask, Rationale).join(Rationale, col(Rationale.id) == ReviewTask.rationale_id)
        with self._store.reading() as session:
            uids = {*session.exec(select(ReviewTask.uid).where(ReviewTask.round_id == round_id))} - but
            rows = [row for some in pieces(uids) for row in session.exec(query.where(col(ReviewTask.uid).in_(some)))]
            return sorted(((task, rationale) for task, rationale in rows), key=lambda row: row[0].uid)

    def given(self, round_id: int) -> dict[int, list[Verdict]]:
        """Every readable verdict on the rationales of a round, by rationale."""
        return readable(self._store, round_id)

    def keep_queued(self, tasks: Sequence[ReviewTask]) -> None:
        """Store whose each task is, since when, and its place in the queue."""
        self._set_tasks(
            [
                {"of": task.uid, "assignee": task.assignee, "assigned_at": task.assigned_at, "place": task.place}
                for task in tasks
            ]
        )

    def _set_tasks(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Set columns, the same in all rows, of the tasks whose uid is `of`."""
        if not rows:
            return
        columns: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "of"}
        change = update(ReviewTask).where(col(ReviewTask.uid) == bindparam("of")).values(columns)
        with self._store.writing() as session:
            session.connection().execute(change, rows)

    def slots(self) -> list[int]:
        """The slots in which the run ever opened a task."""
        query = select(ReviewTask.slot).join(Round).where(Round.run == self._run)
        with self._store.reading() as session:
            return sorted(set(session.exec(query)))

    def keep_verdict(self, verdict: Verdict) -> bool:
        """Store a verdict and settle its task's minutes; False where this version is stored already."""
        return self.keep_verdicts([verdict]) == 1

    def keep_verdicts(self, verdicts: Sequence[Verdict]) -> int:
        """Store verdicts and settle their tasks' minutes in one transaction; how many were new versions.

        Those on rationales that were forgotten since they were looked up are left out.
        """
        with self._store.writing() as session:
            session.get(Balance, (self._run, Currency.MINUTES, ""), with_for_update=True)  # one pull writes at a time
            stored = _stored(session, verdicts)
            wanted = pieces(each.rationale_id for each in verdicts if each.rationale_id is not None)
            query = select(Rationale.id)
            there = {None, *(row for some in wanted for row in session.exec(query.where(col(Rationale.id).in_(some))))}
            kept = [each for each in verdicts if each.rationale_id in there]
            new = {key: each for each in kept if (key := _version(each)) not in stored}
            session.add_all(new.values())
            self._settle(session, new.values())
        return len(new)

    def mark_deleted(
        self, board: str, project: str, standing: Mapping[str, Collection[str]], *, before: datetime
    ) -> int:
        """Note which annotations are gone from tasks that stand there, and which are back; how many changed.

        `standing` are the annotations by the task's uid. What was pulled later than `before` is newer than that.
        """
        query = (
            select(ReviewTask.uid, Verdict.annotation, Verdict.deleted_at)
            .join(
                Verdict, (col(Verdict.rationale_id) == ReviewTask.rationale_id) & (col(Verdict.slot) == ReviewTask.slot)
            )
            .where(Verdict.board == board, Verdict.project == project, Verdict.pulled_at < before)
        )
        with self._store.writing() as session:
            known = [row for row in session.exec(query) if row[0] in standing]
            gone = {each for uid, each, deleted in known if deleted is None and each not in standing[uid]}
            back = {each for uid, each, deleted in known if deleted is not None and each in standing[uid]}
            for changed, at in ((gone, now()), (back, None)):
                for some in pieces(changed):
                    which = (Verdict.board == board, Verdict.project == project, col(Verdict.annotation).in_(some))
                    session.execute(values(Verdict, *which).values(deleted_at=at))
        return len(gone | back)

    def _settle(self, session: Session, verdicts: Iterable[Verdict]) -> None:
        """Settle the minutes of each task with its first verdict; later ones change nothing."""
        first: dict[tuple[int, int], Verdict] = {}
        for each in verdicts:
            if each.rationale_id is not None:
                first.setdefault((each.rationale_id, each.slot), each)
        query = select(ReviewTask, Charge).join(Charge, col(Charge.id) == ReviewTask.charge_id)
        spent: list[tuple[Charge, int]] = []
        for some in pieces({number for number, _ in first}):
            open_tasks = query.where(col(ReviewTask.rationale_id).in_(some), Charge.state == ChargeState.RESERVED)
            for task, charge in session.exec(open_tasks):
                said = first.get((task.rationale_id, task.slot))
                if said is not None:
                    spent.append((charge, round(max(0.0, said.seconds) / 60 * MICRO)))
        self._purse.settle_reviews_in(session, spent)


def _version(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.board, verdict.project, verdict.annotation, verdict.updated_at


def _stored(session: Session, verdicts: Sequence[Verdict]) -> set[tuple[str, str, str, str]]:
    """The versions of these annotations that are stored."""
    query = select(Verdict.board, Verdict.project, Verdict.annotation, Verdict.updated_at)
    names = pieces(each.annotation for each in verdicts)
    return {row for some in names for row in session.exec(query.where(col(Verdict.annotation).in_(some)))}
