"""Answers Label Studio where it asks for predictions: what the page is prefilled with, and the student's answer now."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from connectors.wiring import Project
from loop.records import own_uid
from loop.stages.parts import id_of
from loop.store import reviews, rounds
from loop.store.reviews import RunReviewBook
from review.desk import Open
from review.task import Details, board_task, pre_annotation


class Asked(BaseModel):
    """A task as Label Studio sends it; nothing else of it is looked at."""

    data: dict[str, Any]


class PredictRequest(BaseModel):
    """The body of `/predict`, without what is not needed."""

    tasks: list[Asked]


class PredictionBackend:
    """The student behind the protocol; it says nothing about verdicts and steps' marks."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._shown: tuple[str, frozenset[str]] | None = None

    @property
    def version(self) -> str:
        """Names the student that answers."""
        return self._project.present_answers.version

    def predict(self, asked: PredictRequest) -> dict[str, Any]:
        """One prediction a task, in order; an empty one for a task that is not ours."""
        uids = [own_uid(str(each.data.get("uid", "")).replace("\x00", "")) for each in asked.tasks]
        ours = RunReviewBook(self._project.store, self._project.config.run.name).reviewed(uids)
        answers = self._project.present_answers.of([item for _, _, item in ours.values()])
        version = self.version
        return {
            "model_version": version,
            "results": [self._prediction(ours.get(uid), answers, version) for uid in uids],
        }

    def refresh(self) -> int:
        """Have the open reviews show what the student answers now; how many changed.

        Nothing is done while neither the student nor the open reviews are others than the last time.
        """
        tasks = self._open()
        state = self.version, frozenset(task.uid for task, _, _ in tasks)
        if state == self._shown or not tasks:
            return 0
        self._project.present_answers.of([item for _, _, item in tasks])
        changed = self._project.desk().refresh(tasks)
        self._shown = state
        return changed

    def _open(self) -> list[Open]:
        """The reviews of all rounds that stand on the board without a verdict."""
        store = self._project.store
        opened = rounds.all_rounds(store, self._project.config.run.name)
        found = [each for current in opened for each in reviews.pending(store, id_of(current))]
        return [each for each in found if each[0].pushed_at is not None]

    def _prediction(self, ours: Open | None, answers: Mapping[str, Mapping[str, Any]], version: str) -> dict[str, Any]:
        result: Sequence[Mapping[str, Any]] = []
        score = 0.0
        if ours is not None:
            task, rationale, item = ours
            said = answers.get(item.key, {})
            details = Details(student_steps=tuple(said.get("steps", ())), student_answer=said.get("answer"))
            result = pre_annotation(board_task(task, rationale, item, details, self._project.config.task))
            score = task.place or 0.0
        return {"model_version": version, "score": score, "result": result}
