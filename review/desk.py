"""The reviewers' desk: puts rationales on the board and takes verdicts back."""

from collections.abc import Callable, Sequence

from loop.config import TaskConfig
from loop.ports import ReviewBook
from loop.records import Item, Rationale, ReviewTask
from review.board import Board
from review.task import Details, board_task, interpret


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
    ) -> None:
        self._board = board
        self._book = book
        self._details = details
        self._task = task

    def push(self, tasks: Sequence[tuple[ReviewTask, Rationale, Item]]) -> None:
        """Put what is not yet there on its slot's board and note where it stands."""
        for slot in sorted({task.slot for task, _, _ in tasks}):
            self._push(self._board(slot), [each for each in tasks if each[0].slot == slot])

    def _push(self, board: Board, tasks: Sequence[tuple[ReviewTask, Rationale, Item]]) -> None:
        placed = board.put(
            [
                board_task(task, rationale, item, self._details(rationale, item), self._task)
                for task, rationale, item in tasks
            ]
        )
        project = board.project()
        for task, _, _ in tasks:
            if (task.board, task.project, task.task) != (board.name, project, placed[task.uid]):
                self._book.mark_pushed(task.uid, board=board.name, project=project, task=placed[task.uid])

    def pull(self) -> int:
        """Store all new verdicts, also those given on older versions of the page; how many there were."""
        return sum(self._pull(self._board(slot)) for slot in self._book.slots())

    def _pull(self, board: Board) -> int:
        new = 0
        for project in board.projects():
            for raw in board.changed(self._book.watermark(board.name, project), project):
                task, rationale, item = self._book.reviewed(raw.uid) or (None, None, None)
                slot = 0 if task is None else task.slot
                new += self._book.keep_verdict(interpret(raw, board.name, rationale, item, self._task, slot))
        return new

    def address(self) -> str:
        """Where reviewers find the work."""
        return ", ".join(self._board(slot).address() for slot in self._book.slots() or [0])
