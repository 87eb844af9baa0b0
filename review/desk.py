"""The reviewers' desk: puts rationales on the board and takes verdicts back."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from loop.config import ReviewerConfig, TaskConfig
from loop.ports import ReviewBook
from loop.records import Item, Rationale, ReviewTask, Verdict, board_uid
from review import triage
from review.assignment import Claim, assign
from review.board import Board, BoardTask
from review.task import Details, board_task, interpret

BY_CHANCE = frozenset({"audit", "planted"})
"""Reasons for which a review stands at a random place in the queue."""
Open = tuple[ReviewTask, Rationale, Item]


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

    A board is opened when first needed.
    """

    def __init__(
        self,
        board: Callable[[int], Board],
        book: ReviewBook,
        details: Callable[[Rationale, Item], Details],
        task: TaskConfig,
        queue: Queue | None = None,
    ) -> None:
        self._board = board
        self._book = book
        self._details = details
        self._task = task
        self._queue = queue or Queue()

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
        shown = {each[0].uid: self._shown(*each, given.get(each[0].rationale_id, ())) for each in tasks}
        placed = board.put(list(shown.values()))
        board.arrange([shown[task.uid] for task, _, _ in tasks if moved.get(task.uid)])
        for name in {task.assignee for task, _, _ in tasks if task.uid in moved and task.assignee}:
            board.address_of(name)
        project = board.project()
        for task, _, _ in tasks:
            there = (board.name, project, placed[shown[task.uid].uid])
            if (task.board, task.project, task.task) != there:
                self._book.mark_pushed(task.uid, board=board.name, project=project, task=there[2])
            if task.uid in moved:
                self._book.keep_queued(task)

    def _shown(self, task: ReviewTask, rationale: Rationale, item: Item, given: Sequence[Verdict]) -> BoardTask:
        """The task as it stands on the board; a fresh copy where nothing that was said of it in this slot counts."""
        made = board_task(task, rationale, item, self._details(rationale, item), self._task)
        uid = board_uid(task.uid, sum(verdict.slot == task.slot for verdict in given))
        return replace(made, uid=uid, data={**made.data, "uid": uid})

    def _queued(self, tasks: Sequence[Open], given: Mapping[int, Sequence[Verdict]]) -> dict[str, bool]:
        """Set place and assignee of each open task; of those that changed, whether they stood on the board before."""
        place, claim = self._places(tasks[0][0].round_id), {}
        ordered = sorted((task for task, _, _ in tasks), key=lambda task: (place[task.uid], task.uid))
        if self._queue.reviewers:
            names = {number: name for name, number in self._board(0).people().items()}
            busy = [(key, names.get(each.reviewer, "")) for key, rows in given.items() for each in rows]
            claims = [Claim(each.uid, each.rationale_id, each.assignee, _aware(each.assigned_at)) for each in ordered]
            claim = assign(claims, self._queue.reviewers, busy, datetime.now(UTC), self._queue.patience)
        moved = {}
        for task in ordered:
            theirs = claim.get(task.uid, Claim(task.uid, task.rationale_id))
            now = (theirs.assignee, theirs.since, place[task.uid])
            if now != (task.assignee, _aware(task.assigned_at), task.place):
                moved[task.uid] = task.pushed_at is not None
                task.assignee, task.assigned_at, task.place = now
        return moved

    def _places(self, round_id: int) -> dict[str, float]:
        """The place of every task of a round in the queue of its slot."""
        rows = self._book.queue(round_id)
        worth, slots = self._queue.worth([rationale for _, rationale in rows]), defaultdict(list)
        for task, _ in rows:
            slots[task.slot].append(task)
        found: dict[str, float] = {}
        for some in slots.values():
            worths = {task.uid: worth.get(task.rationale_id, 0.0) for task in some}
            found |= triage.places(worths, {task.uid: task.uid for task in some if task.reason in BY_CHANCE})
        return found

    def pull(self) -> int:
        """Store all new verdicts, also those given on older versions of the page; how many there were."""
        return sum(self._pull(self._board(slot)) for slot in self._book.slots())

    def _pull(self, board: Board) -> int:
        new, people = 0, board.people() if self._queue.reviewers else {}
        for project in board.projects():
            for raw in board.changed(self._book.watermark(board.name, project), project):
                task, rationale, item = self._book.reviewed(raw.uid) or (None, None, None)
                slot = 0 if task is None else task.slot
                verdict = interpret(raw, board.name, rationale, item, self._task, slot)
                verdict.assignee = "" if task is None else people.get(task.assignee, "")
                new += self._book.keep_verdict(verdict)
        return new

    def address(self) -> str:
        """Where reviewers find the work."""
        return ", ".join(self._board(slot).address() for slot in self._book.slots() or [0])


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
