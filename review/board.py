"""Where reviewers work: what a board must do, whichever stands behind it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Result = list[dict[str, Any]]
"""Regions of an annotation in Label Studio's form."""


@dataclass(frozen=True)
class BoardTask:
    """What stands on the board for one rationale. `uid` is ours and names the task for good."""

    uid: str
    data: Mapping[str, Any]
    prediction: Result = field(default_factory=list)
    score: float = 0.0
    """Its place: the lowest score is handed out first."""


@dataclass(frozen=True)
class Place:
    """Where a task stands: the board's ids of its project and of itself."""

    project: str
    task: str


@dataclass(frozen=True)
class OpenTask:
    """A task without a verdict, as a reviewer finds it."""

    uid: str
    task: str
    data: Mapping[str, Any]
    prediction: Result
    score: float = 0.0


@dataclass(frozen=True)
class RawVerdict:
    """One version of an annotation as it came. `updated_at` is UTC, ISO 8601 with microseconds and `Z`.

    `prefilled` says that the reviewer began with the teacher's answer: what is not there any more was taken off.
    """

    uid: str
    project: str
    annotation: str
    updated_at: str
    reviewer: str
    seconds: float
    result: Result
    raw: dict[str, Any]
    prefilled: bool = False


@dataclass(frozen=True)
class Standing:
    """A task as it stands on the board, with its annotations, skipped ones left out.

    The same uid may stand there twice, where a request that seemed lost was carried out late.
    """

    uid: str
    task: str
    verdicts: tuple[RawVerdict, ...] = ()


class Board(Protocol):
    """A place where rationales are put and verdicts come back."""

    @property
    def name(self) -> str:
        """Which kind of board; a fake one says so."""
        ...

    def put(self, tasks: Iterable[BoardTask]) -> Mapping[str, Place]:
        """Make sure that each task stands on the board once; where, by uid.

        A project takes only so many; the next ones go to a further one. Tasks may be made while others are put there,
        so that not all need to be held at once.
        """
        ...

    def arrange(self, tasks: Sequence[BoardTask]) -> None:
        """Give tasks that stand on the board, by uid, the data (and so the assignee) and the place that they have here.

        Everybody to whom something is assigned gets a list of their own.
        """
        ...

    def people(self) -> Mapping[str, str]:
        """Who can log in: the board's id of each person by the name with which they do."""
        ...

    def address_of(self, person: str) -> str:
        """Where a person finds what is assigned to them; several places, joined by commas, where it is in several."""
        ...

    def project(self) -> str:
        """The board's id of the first project of this version of the page; made where there is none."""
        ...

    def projects(self) -> list[list[str]]:
        """The ids of all projects that hold or held the tasks, those of one version of the page together.

        The present version's come first; there may be none of them yet.
        """
        ...

    def changed(self, since: str | None, project: str | None = None) -> list[RawVerdict]:
        """Annotations of tasks touched since a little before that time, skipped ones left out.

        Of the present version's projects where none is named.
        """
        ...

    def touched(self, project: str, since: str | None) -> Iterator[Standing]:
        """Tasks with annotations that were touched since a little before that time."""
        ...

    def listing(self, project: str) -> Iterator[Standing]:
        """All tasks of a project that are ours."""
        ...

    def remove(self, task: str) -> None:
        """Take a task off the board: a second one of the same uid."""
        ...

    def forget(self, uids: Collection[str]) -> int:
        """Delete the tasks of those uids, every copy in every project, with all that was said of them; how many."""
        ...

    def address(self) -> str:
        """Where reviewers find the tasks; several places, joined by commas, where open ones are in several."""
        ...

    def open_tasks(self) -> list[OpenTask]:
        """Tasks that nobody has judged."""
        ...

    def annotate(self, task: str, result: Result, *, seconds: float, unique_id: str) -> None:
        """Judge a task as a program, the way the page does; the same `unique_id` twice is one annotation."""
        ...
