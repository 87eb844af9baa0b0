"""Puts tasks into the projects of a Label Studio board: each once, no project over-full, and with rests in between."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from connectors.label_studio_projects import MODEL_VERSION, ONCE, Projects
from loop.errors import BoardDown
from review.board import BoardTask, Place

T = TypeVar("T")
R = TypeVar("R")
PIECE = 1000
"""Tasks in one import, and in one page of a listing."""
LONGEST_REST = 30.0
"""Seconds. Label Studio's guide calls one import in so many free of overloads."""


@dataclass(frozen=True)
class Landed:
    """A task on the server, and whether its boxes are prefilled."""

    project: int
    task: int
    filled: bool

    @property
    def place(self) -> Place:
        """Where it stands, as the board's port says it."""
        return Place(str(self.project), str(self.task))


class Importer:
    """Imports what no project has, `most` tasks in each project; the server at `url` answers within `timeout`."""

    def __init__(self, server: LabelStudio, projects: Projects, *, most: int, url: str, timeout: float | None) -> None:
        self._server = server
        self._projects = projects
        self._most = most
        self._url = url
        self._once = ONCE | {"timeout_in_seconds": timeout}
        self._room: dict[int, int] = {}

    def put(self, tasks: Iterable[BoardTask]) -> dict[str, Place]:
        """Import what no project has; after an error look at what landed and go on from there.

        What stands there is listed once. While the server takes one piece, the next one is made.
        """
        there, self._room = self.look()
        placed: dict[str, Place] = {}
        for found in paced(self._send, self._missing(tasks, there, placed)):
            placed |= found
        return placed

    def look(self) -> tuple[dict[str, Landed], dict[int, int]]:
        """What stands in the projects of this version of the page, by uid, of several with one uid the first; and how
        many tasks more each project takes.
        """
        there: dict[str, Landed] = {}
        room = {}
        for project in self._projects.present():
            landed, many = self._listed(project)
            there = landed | there
            room[project] = self._most - many
        return there, room

    def _missing(
        self, tasks: Iterable[BoardTask], there: Mapping[str, Landed], placed: dict[str, Place]
    ) -> Iterator[list[BoardTask]]:
        """Pieces of the tasks that do not stand there; the places of those that do go to `placed`."""
        left = iter(tasks)
        while piece := list(islice(left, PIECE)):
            placed |= self._complete(there, piece)
            if missing := [task for task in piece if task.uid not in placed]:
                yield missing

    def _send(self, tasks: Sequence[BoardTask]) -> dict[str, Place]:
        """Import one piece into the projects that have room; where none has, into a further one."""
        placed: dict[str, Place] = {}
        left = list(tasks)
        while left:
            project = next((each for each, room in self._room.items() if room > 0), None)
            if project is None:
                project = self._projects.make()
                self._room[project] = self._most
            fitting, left = left[: self._room[project]], left[self._room[project] :]
            placed |= self._import(project, fitting)
            self._room[project] -= len(fitting)
        return placed

    def _listed(self, project: int) -> tuple[dict[str, Landed], int]:
        """What stands in a project by uid, of several with one uid the first, and how many tasks it has in all."""
        tasks = self._server.tasks.list(
            project=project, include="id,data,total_predictions", fields="task_only", page_size=PIECE
        )
        found: dict[str, Landed] = {}
        many = 0
        for task in tasks:
            many += 1
            uid, landed = task.data.get("uid"), Landed(project, int(task.id), bool(task.total_predictions))
            if uid is not None and (uid not in found or landed.task < found[uid].task):
                found[uid] = landed
        return found, many

    def _import(self, project: int, tasks: Sequence[BoardTask]) -> dict[str, Place]:
        """Import some into a project. Where the reply does not come, or does not count all, look at what landed."""
        request = [{"data": dict(task.data), "predictions": [_prediction(task)]} for task in tasks]
        try:
            done = self._server.projects.import_tasks(
                id=project, request=request, return_task_ids=True, request_options=self._once
            )
        except (ApiError, httpx.HTTPError):
            there = self._complete(self._listed(project)[0], tasks)
            if any(task.uid not in there for task in tasks):
                raise
            return there
        if (done.task_count, done.prediction_count, len(done.task_ids or ())) == (len(tasks),) * 3:
            ids = zip(tasks, done.task_ids, strict=True)
            return {task.uid: Place(str(project), str(number)) for task, number in ids}
        there = self._complete(self._listed(project)[0], tasks)
        if lacking := [task.uid for task in tasks if task.uid not in there]:
            raise BoardDown(
                f"Label Studio at {self._url} took {len(tasks) - len(lacking)} of {len(tasks)} tasks without a word "
                f"about the others (the first: {lacking[0]}); run again to send them once more"
            )
        return there

    def _complete(self, there: Mapping[str, Landed], tasks: Collection[BoardTask]) -> dict[str, Place]:
        """Give landed ones of the tasks the prefilled boxes that the server dropped; their places by uid."""
        landed = {task.uid: there[task.uid] for task in tasks if task.uid in there}
        for task in tasks:
            if task.uid in landed and not landed[task.uid].filled:
                self._server.predictions.create(task=landed[task.uid].task, **_prediction(task), request_options=ONCE)
        return {uid: each.place for uid, each in landed.items()}


def paced(send: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
    """What comes of sending each piece; while one is sent, the next one is made. The first failure ends it.

    After each piece but the last the server has a rest as long as that took, for the people who work meanwhile: an
    import is done when it is answered, and takes the server whole. Who is interrupted in a rest goes at once.
    """

    def timed(piece: T) -> tuple[R, float]:
        began = time.monotonic()
        done = send(piece)
        ended = time.monotonic()
        return done, ended + min(ended - began, LONGEST_REST)

    with ThreadPoolExecutor(1) as sender:
        sending = None
        for piece in pieces:
            if sending is not None:
                done, rested = sending.result()
                yield done
                time.sleep(max(0.0, rested - time.monotonic()))
            sending = sender.submit(timed, piece)
        if sending is not None:
            yield sending.result()[0]


def _prediction(task: BoardTask) -> dict[str, Any]:
    """What is prefilled."""
    return {"model_version": MODEL_VERSION, "score": task.score, "result": task.prediction}
