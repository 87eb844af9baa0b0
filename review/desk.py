"""The reviewers' desk: puts rationales on the board and takes verdicts back."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

from loop.config import TaskConfig
from loop.errors import BoardError
from loop.ports import ReviewBook
from loop.records import Item, Rationale, ReviewTask
from review.board import Board, Standing
from review.task import Details, board_task, interpret

PIECE = 500
"""Tasks whose verdicts are stored in one transaction."""


class Desk:
    """Joins the boards, one for each slot, and the book (`loop.ports.Reviewers`).

    A board is opened when first needed. What does not stand in the newest project of its board, as far as the book
    knows, is what is left to push: there is no other outbox.
    """

    def __init__(
        self,
        board: Callable[[int], Board],
        book: ReviewBook,
        details: Callable[[Sequence[Rationale]], Mapping[int, Details]],
        task: TaskConfig,
        *,
        listing_hours: float = 24.0,
    ) -> None:
        self._board = board
        self._book = book
        self._details = details
        self._task = task
        self._listing = timedelta(hours=listing_hours)

    def push(self, tasks: Sequence[tuple[ReviewTask, Rationale, Item]]) -> None:
        """Put what is not yet there on its slot's board and note where it stands."""
        for slot in sorted({task.slot for task, _, _ in tasks}):
            self._push(self._board(slot), [each for each in tasks if each[0].slot == slot])

    def _push(self, board: Board, tasks: Sequence[tuple[ReviewTask, Rationale, Item]]) -> None:
        project = board.project()
        left = [each for each in tasks if (each[0].board, each[0].project) != (board.name, project)]
        if not left:
            return
        details = self._details([rationale for _, rationale, _ in left])
        try:
            placed = board.put(
                [
                    board_task(task, rationale, item, details.get(rationale.id or 0, Details()), self._task)
                    for task, rationale, item in left
                ]
            )
        except BoardError:
            self._book.doubt(board.name, project)
            raise
        self._book.mark_pushed(placed, board=board.name, project=project)

    def pull(self, *, whole: bool = False) -> int:
        """Store all new verdicts, also those given on older versions of the page, and note what was deleted.

        How many changed. Deleted tasks and single annotations only show in a listing of the `whole` project, which is
        made when it is due.
        """
        return sum(self._pull(self._board(slot), whole) for slot in self._book.slots())

    def _pull(self, board: Board, whole: bool) -> int:
        changed = 0
        for project in board.projects():
            started = datetime.now(UTC)
            listed = whole or self._book.listing_due(board.name, project)
            since = self._book.watermark(board.name, project)
            tasks: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
            for piece in _pieces(board.listing(project) if listed else board.touched(project, since)):
                changed += self._keep(board, piece)
                for each in piece:
                    tasks[each.uid][each.task] = [raw.annotation for raw in each.verdicts]
            standing = {uid: {each for some in copies.values() for each in some} for uid, copies in tasks.items()}
            changed += self._book.mark_deleted(board.name, project, standing, before=started)
            if listed:
                self._compare(board, project, tasks)
        return changed

    def _keep(self, board: Board, piece: Sequence[Standing]) -> int:
        """Store the verdicts of some tasks; how many were new."""
        ours = self._book.reviewed([each.uid for each in piece if each.verdicts])
        verdicts = []
        for each in piece:
            task, rationale, item = ours.get(each.uid, (None, None, None))
            slot = 0 if task is None else task.slot
            verdicts += [interpret(raw, board.name, rationale, item, self._task, slot) for raw in each.verdicts]
        return self._book.keep_verdicts(verdicts) if verdicts else 0

    def _compare(self, board: Board, project: str, tasks: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Hold a whole listing against the book: second copies are removed, what is gone is to be pushed again."""
        for copies in tasks.values():
            judged = [task for task, verdicts in copies.items() if verdicts]
            kept = {*judged} or {min(copies, key=int)}
            for task in copies.keys() - kept:
                board.remove(task)
        gone = self._book.placed(board.name, project) - tasks.keys()
        if gone:  # while pages are turned, one deletion moves another task out of sight: look twice
            gone -= {each.uid for each in board.listing(project)}
            self._book.mark_gone(gone)
        self._book.mark_listed(board.name, project, again=datetime.now(UTC) + self._listing)

    def address(self) -> str:
        """Where reviewers find the work."""
        return ", ".join(self._board(slot).address() for slot in self._book.slots() or [0])


def _pieces(standing: Iterable[Standing]) -> Iterator[list[Standing]]:
    """What is listed, in pieces."""
    left = iter(standing)
    while piece := list(islice(left, PIECE)):
        yield piece
