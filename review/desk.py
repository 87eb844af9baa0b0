"""The reviewers' desk: puts rationales on the board and takes verdicts back."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

from loop.config import ReviewerConfig, TaskConfig
from loop.errors import BoardError
from loop.ports import ReviewBook
from loop.records import Item, Rationale, ReviewTask, Verdict, board_uid, own_uid
from review import triage
from review.assignment import Claim, assign
from review.board import Board, BoardTask, Standing
from review.task import Details, board_task
from review.verdict import interpret

PIECE = 500
"""Tasks that are made, or whose verdicts are stored, at once."""
BY_CHANCE = frozenset({"audit", "planted"})
"""Reasons for which a review stands at a random place in the queue."""
Open = tuple[ReviewTask, Rationale, Item]
Copies = dict[str, dict[str, Sequence[str]]]
"""Annotations by the board's task id, by uid."""
T = TypeVar("T")


@dataclass(frozen=True)
class Queue:
    """In which order reviews are handed out, and to whom; without reviewers there is one queue for everybody."""

    worth: Callable[[Sequence[Rationale]], Mapping[int, float]] = lambda _rows: {}
    """What a minute of review is worth for each rationale, by its id."""
    reviewers: tuple[ReviewerConfig, ...] = ()
    patience: timedelta = timedelta(hours=48)
    """After so long without a verdict an assigned review goes to somebody else."""


class Desk:
    """Joins the boards, one for each slot, and the book (`loop.ports.Reviewers`).

    A board is opened when first needed. What does not stand in a project of its board's present page, as far as
    the book knows, is what is left to push: there is no other outbox.
    """

    def __init__(
        self,
        board: Callable[[int], Board],
        book: ReviewBook,
        details: Callable[[Sequence[Rationale]], Mapping[int, Details]],
        task: TaskConfig,
        queue: Queue | None = None,
        *,
        listing_hours: float = 24.0,
    ) -> None:
        self._board = board
        self._book = book
        self._details = details
        self._task = task
        self._queue = queue or Queue()
        self._listing = timedelta(hours=listing_hours)

    def worth(self, rows: Sequence[Rationale]) -> Mapping[int, float]:
        """What a minute of review is worth for each rationale, by its id."""
        return self._queue.worth(rows)

    def push(self, tasks: Sequence[Open]) -> None:
        """Give each open task its place and its assignee, put what is not yet there on its slot's board, note where."""
        if not tasks:
            return
        given = self._book.given(tasks[0][0].round_id)
        moved = self._queued(tasks, given)
        for slot in sorted({task.slot for task, _, _ in tasks}):
            self._push(self._board(slot), [each for each in tasks if each[0].slot == slot], moved, given)

    def _push(
        self, board: Board, tasks: Sequence[Open], moved: Mapping[str, bool], given: Mapping[int, Sequence[Verdict]]
    ) -> None:
        projects = board.projects()[0]
        left = [each for each in tasks if _is_missing(each[0], board.name, projects, given)]
        gone = {task.uid for task, _, _ in left}
        stale = [each for each in tasks if moved.get(each[0].uid) and each[0].uid not in gone]
        try:
            placed = board.put(self._made(left, given)) if left else {}
            board.arrange([*self._made(stale, given)])
        except BoardError:
            for project in projects:
                self._book.doubt(board.name, project)
            raise
        where: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for task, _, _ in left:
            place = placed[_uid_there(task, given)]
            where[place.project][task.uid] = place.task
        for project, there in where.items():
            self._book.mark_pushed(there, board=board.name, project=project)
        for name in {task.assignee for task, _, _ in tasks if task.uid in moved and task.assignee}:
            board.address_of(name)
        self._book.keep_queued([task for task, _, _ in tasks if task.uid in moved])

    def refresh(self, tasks: Sequence[Open]) -> int:
        """Have tasks that stand open on the boards show what the student answers, as it is known now; how many changed.

        All else stays as it stands there: the run that holds the desk may be moving it.
        """
        shown: dict[str, str] = {}
        for round_id in {task.round_id for task, _, _ in tasks}:
            made = self._made([each for each in tasks if each[0].round_id == round_id], self._book.given(round_id))
            shown |= {each.uid: each.data["student"] for each in made}
        changed = 0
        for slot in sorted({task.slot for task, _, _ in tasks}):
            stale = [
                BoardTask(each.uid, {**each.data, "student": shown[each.uid]}, score=each.score)
                for each in self._board(slot).open_tasks()
                if each.uid in shown and each.data.get("student") != shown[each.uid]
            ]
            self._board(slot).arrange(stale)
            changed += len(stale)
        return changed

    def _made(self, tasks: Sequence[Open], given: Mapping[int, Sequence[Verdict]]) -> Iterator[BoardTask]:
        """Tasks as they stand on the board; a fresh copy where what was said in its slot does not count."""
        for piece in _pieces(tasks):
            details = self._details([rationale for _, rationale, _ in piece])
            for task, rationale, item in piece:
                made = board_task(task, rationale, item, details.get(task.rationale_id, Details()), self._task)
                uid = _uid_there(task, given)
                yield replace(made, uid=uid, data={**made.data, "uid": uid})

    def _queued(self, tasks: Sequence[Open], given: Mapping[int, Sequence[Verdict]]) -> dict[str, bool]:
        """Set place and assignee of each open task; of those that changed, whether they stood on the board before."""
        place, claim = self._places(tasks), {}
        ordered = sorted((task for task, _, _ in tasks), key=lambda task: (place[task.uid], task.uid))
        if self._queue.reviewers:
            names = {number: name for name, number in self._board(0).people().items()}
            busy = [(key, names.get(each.reviewer, "")) for key, rows in given.items() for each in rows]
            claims = [Claim(each.uid, each.rationale_id, each.assignee, each.assigned_at) for each in ordered]
            claim = assign(claims, self._queue.reviewers, busy, datetime.now(UTC), self._queue.patience)
        moved = {}
        for task in ordered:
            theirs = claim.get(task.uid, Claim(task.uid, task.rationale_id))
            now = (theirs.assignee, theirs.since, place[task.uid])
            if now != (task.assignee, task.assigned_at, task.place):
                moved[task.uid] = task.pushed_at is not None
                task.assignee, task.assigned_at, task.place = now
        return moved

    def _places(self, tasks: Sequence[Open]) -> dict[str, float]:
        """The place of every task of the round in the queue of its slot, the open ones as they are here."""
        known = {task.uid: (task, rationale) for task, rationale, _ in tasks}
        rows = [*known.values(), *self._book.queue(tasks[0][0].round_id, but=known.keys())]
        rows.sort(key=lambda row: row[0].uid)
        worth, slots = self._queue.worth([rationale for _, rationale in rows]), defaultdict(list)
        for task, _ in rows:
            slots[task.slot].append(task)
        found: dict[str, float] = {}
        for some in slots.values():
            worths = {task.uid: worth.get(task.rationale_id, 0.0) for task in some}
            found |= triage.places(worths, {task.uid: task.uid for task in some if task.reason in BY_CHANCE})
        return found

    def pull(self, *, whole: bool = False) -> int:
        """Store all new verdicts, also those given on older versions of the page, and note what was deleted.

        How many changed. Deleted tasks and single annotations only show in a listing of the `whole` project, which is
        made when it is due.
        """
        return sum(self._pull(self._board(slot), whole) for slot in self._book.slots())

    def _pull(self, board: Board, whole: bool) -> int:
        people = board.people() if self._queue.reviewers else {}
        return sum(self._pull_version(board, projects, people, whole) for projects in board.projects())

    def _pull_version(self, board: Board, projects: Sequence[str], people: Mapping[str, str], whole: bool) -> int:
        """Pull one version of the page; its projects are listed together, since a copy may stand in another one."""
        listed = whole or any(self._book.listing_due(board.name, project) for project in projects)
        changed, found = 0, {}
        for project in projects:
            started = datetime.now(UTC)
            since = self._book.watermark(board.name, project)
            tasks: Copies = defaultdict(dict)
            for piece in _pieces(board.listing(project) if listed else board.touched(project, since)):
                changed += self._keep(board, piece, people)
                for each in piece:
                    tasks[each.uid][each.task] = [raw.annotation for raw in each.verdicts]
            standing: defaultdict[str, set[str]] = defaultdict(set)
            for uid, copies in tasks.items():
                standing[own_uid(uid)].update(each for some in copies.values() for each in some)
            changed += self._book.mark_deleted(board.name, project, standing, before=started)
            found[project] = tasks
        if listed:
            self._compare(board, found)
        return changed

    def _keep(self, board: Board, piece: Sequence[Standing], people: Mapping[str, str]) -> int:
        """Store the verdicts of some tasks; how many were new. What is said of a forgotten item is not kept."""
        uids = [each.uid for each in piece if each.verdicts]
        ours = self._book.reviewed(uids)
        gone = self._book.forgotten([uid for uid in uids if own_uid(uid) not in ours])
        verdicts = []
        for each in piece:
            if each.uid in gone:
                continue
            task, rationale, item = ours.get(own_uid(each.uid), (None, None, None))
            slot = 0 if task is None else task.slot
            for raw in each.verdicts:
                verdict = interpret(raw, board.name, rationale, item, self._task, slot)
                verdict.assignee = "" if task is None else people.get(task.assignee, "")
                verdicts.append(verdict)
        return self._book.keep_verdicts(verdicts) if verdicts else 0

    def _compare(self, board: Board, found: Mapping[str, Copies]) -> None:
        """Hold whole listings against the book: second copies are removed, what is gone is to be pushed again."""
        together: Copies = defaultdict(dict)
        for tasks in found.values():
            for uid, copies in tasks.items():
                together[uid] |= copies
        removed = set()
        for copies in together.values():
            judged = {task for task, verdicts in copies.items() if verdicts}
            removed |= copies.keys() - (judged or {min(copies, key=int)})
        for task in removed:
            board.remove(task)
        for project, tasks in found.items():
            there = {own_uid(uid) for uid, copies in tasks.items() if copies.keys() - removed}
            gone = self._book.placed(board.name, project) - there
            if gone:  # while pages are turned, one deletion moves another task out of sight: look twice
                gone -= {own_uid(each.uid) for each in board.listing(project)}
                self._book.mark_gone(gone)
            self._book.mark_listed(board.name, project, again=datetime.now(UTC) + self._listing)

    def address(self) -> str:
        """Where reviewers find the work."""
        return ", ".join(self._board(slot).address() for slot in self._book.slots() or [0])


def _said(task: ReviewTask, given: Mapping[int, Sequence[Verdict]]) -> list[Verdict]:
    """What was said of a rationale in the task's slot."""
    return [verdict for verdict in given.get(task.rationale_id, ()) if verdict.slot == task.slot]


def _uid_there(task: ReviewTask, given: Mapping[int, Sequence[Verdict]]) -> str:
    """What the board knows the task by: another name for a fresh copy."""
    return board_uid(task.uid, len(_said(task, given)))


def _is_missing(task: ReviewTask, board: str, projects: Sequence[str], given: Mapping[int, Sequence[Verdict]]) -> bool:
    """Whether an open task is to be put on the board: it is not there, or its newest verdict there does not count."""
    pushed = task.pushed_at
    if pushed is None or task.board != board or task.project not in projects:
        return True
    return any(verdict.pulled_at > pushed for verdict in _said(task, given))


def _pieces(things: Iterable[T]) -> Iterator[list[T]]:
    """Things in pieces."""
    left = iter(things)
    while piece := list(islice(left, PIECE)):
        yield piece
