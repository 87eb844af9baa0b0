"""A stand-in for Label Studio in one JSON file, for tests and quick trials. It is a fake and says so."""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from loop.records import own_uid
from review.board import BoardTask, OpenTask, Place, RawVerdict, Result, Standing

OVERLAP = timedelta(seconds=5)


class FakeBoard:
    """Keeps tasks and annotations in a file, so that another process sees them (`review.board.Board`)."""

    def __init__(self, file: Path, *, title: str, person: str = "1", tasks_per_project: int = 100_000) -> None:
        self._file = file
        self._title = title
        self._person = person
        self._most = tasks_per_project

    @property
    def name(self) -> str:
        """Says that it is a fake."""
        return "fake"

    def project(self) -> str:
        """The first project; its title stands for its id."""
        return self._title

    def address(self) -> str:
        """The file."""
        return f"the fake board {self._file}"

    def put(self, tasks: Iterable[BoardTask]) -> Mapping[str, Place]:
        """Add the tasks whose uid is not there, each to the first project with room."""
        state, wanted = self._read(), list(tasks)
        many = Counter(_part(each) for each in state["tasks"].values())
        for task in wanted:
            if task.uid not in state["tasks"]:
                part = next(number for number in count(1) if many[number] < self._most)
                many[part] += 1
                state["numbered"] += 1
                state["tasks"][task.uid] = {
                    "id": str(state["numbered"]),
                    "part": part,
                    "data": dict(task.data),
                    "prediction": task.prediction,
                    "score": task.score,
                }
        self._write(state)
        there = {task.uid: state["tasks"][task.uid] for task in wanted}
        return {uid: Place(self._project_of(each), each["id"]) for uid, each in there.items()}

    def _titled(self, part: int) -> str:
        return self._title if part == 1 else f"{self._title} ({part})"

    def _project_of(self, task: Mapping[str, Any]) -> str:
        return self._titled(_part(task))

    def arrange(self, tasks: Sequence[BoardTask]) -> None:
        """Replace the data and the place."""
        state = self._read()
        for task in tasks:
            state["tasks"][task.uid] |= {"data": dict(task.data), "score": task.score}
        self._write(state)

    def people(self) -> Mapping[str, str]:
        """Everybody who worked here; their name stands for their id."""
        return {each["reviewer"]: each["reviewer"] for each in self._read()["annotations"]}

    def address_of(self, person: str) -> str:
        """The file, and for whom."""
        return f"{self.address()}, what is for {person}"

    def projects(self) -> list[list[str]]:
        """The first one and those that hold tasks, in order; there is one version of the page."""
        return [[self._titled(part) for part in sorted({1, *map(_part, self._read()["tasks"].values())})]]

    def changed(self, since: str | None, project: str | None = None) -> list[RawVerdict]:
        """Annotations since a little before that time, skipped ones left out."""
        start = "" if since is None else _text(datetime.fromisoformat(since) - OVERLAP)
        state = self._read()
        return [
            RawVerdict(
                uid=each["uid"],
                project=there,
                annotation=each["id"],
                updated_at=each["updated_at"],
                reviewer=each["reviewer"],
                seconds=each["seconds"],
                result=each["result"],
                raw=each,
            )
            for each in state["annotations"]
            if each["updated_at"] >= start
            and not each["was_cancelled"]
            and project in (None, there := self._project_of(state["tasks"][each["uid"]]))
        ]

    def touched(self, project: str, since: str | None) -> Iterator[Standing]:
        """Tasks with annotations since a little before that time."""
        new = {each.uid for each in self.changed(since, project)}
        return (each for each in self.listing(project) if each.uid in new)

    def listing(self, project: str) -> Iterator[Standing]:
        """All tasks of a project."""
        said = self.changed(None, project)
        for uid, task in self._read()["tasks"].items():
            if self._project_of(task) == project:
                yield Standing(uid, task["id"], tuple(each for each in said if each.uid == uid))

    def remove(self, task: str) -> None:
        """Take a task and its annotations off the board, as users may."""
        state = self._read()
        gone = next(uid for uid, each in state["tasks"].items() if each["id"] == task)
        del state["tasks"][gone]
        state["annotations"] = [each for each in state["annotations"] if each["uid"] != gone]
        self._write(state)

    def forget(self, uids: Collection[str]) -> int:
        """Delete the tasks with their annotations."""
        state = self._read()
        gone = {uid for uid in state["tasks"] if own_uid(uid) in uids}
        if gone:
            state["tasks"] = {uid: task for uid, task in state["tasks"].items() if uid not in gone}
            state["annotations"] = [each for each in state["annotations"] if each["uid"] not in gone]
            self._write(state)
        return len(gone)

    def open_tasks(self) -> list[OpenTask]:
        """Tasks that nobody has judged."""
        state = self._read()
        judged = {each["uid"] for each in state["annotations"] if not each["was_cancelled"]}
        return [
            OpenTask(
                uid=uid,
                task=task["id"],
                data=task["data"],
                prediction=task["prediction"],
                score=task.get("score", 0.0),
            )
            for uid, task in state["tasks"].items()
            if uid not in judged
        ]

    def annotate(self, task: str, result: Result, *, seconds: float, unique_id: str) -> None:
        """Add an annotation once."""
        self._annotate(task, result, seconds=seconds, unique_id=unique_id, skipped=False)

    def skip(self, task: str, *, unique_id: str) -> None:
        """Skip a task as the page does: what was prefilled is stored, but it is no verdict."""
        state = self._read()
        found = next(each for each in state["tasks"].values() if each["id"] == task)
        self._annotate(task, found["prediction"], seconds=1.0, unique_id=unique_id, skipped=True)

    def change(self, annotation: str, result: Result) -> None:
        """Change an annotation; it becomes a new version."""
        state = self._read()
        found = next(each for each in state["annotations"] if each["id"] == annotation)
        found["result"], found["updated_at"] = result, _text(datetime.now(UTC))
        self._write(state)

    def delete(self, annotation: str) -> None:
        """Delete an annotation, as users may."""
        state = self._read()
        state["annotations"] = [each for each in state["annotations"] if each["id"] != annotation]
        self._write(state)

    def _annotate(self, task: str, result: Result, *, seconds: float, unique_id: str, skipped: bool) -> None:
        state = self._read()
        if any(each["unique_id"] == unique_id for each in state["annotations"]):
            return
        uid = next(uid for uid, each in state["tasks"].items() if each["id"] == task)
        state["numbered"] += 1
        state["annotations"].append(
            {
                "id": str(state["numbered"]),
                "uid": uid,
                "result": result,
                "seconds": seconds,
                "unique_id": unique_id,
                "reviewer": self._person,
                "was_cancelled": skipped,
                "updated_at": _text(datetime.now(UTC)),
            }
        )
        self._write(state)

    def _read(self) -> dict[str, Any]:
        if not self._file.exists():
            return {"numbered": 0, "tasks": {}, "annotations": []}
        state: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return state

    def _write(self, state: Mapping[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        partial.replace(self._file)


def _part(task: Mapping[str, Any]) -> int:
    """The number of a task's project."""
    number: int = task.get("part", 1)
    return number


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
