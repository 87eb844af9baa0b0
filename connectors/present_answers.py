"""What the student in force answers now, kept in a file for each checkpoint."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from connectors import atomic
from loop.errors import StudentError
from loop.ports import Student, Trainer
from loop.records import Checkpoint, Item
from loop.stages.parts import in_force
from loop.store.database import Store

PIECE = 32
"""Items that are answered, and kept, at once."""


class PresentAnswers:
    """Steps and answers by item key, in the form in which a score's parts keep them. Several threads may ask."""

    def __init__(
        self, store: Store, run: str, folder: Path, trainer: Callable[[], Trainer], say: Callable[[str], None]
    ) -> None:
        self._store = store
        self._run = run
        self._folder = folder
        self._trainer = trainer
        self._say = say
        self._lock = threading.Lock()
        self._loaded: tuple[int | None, Student | None] | None = None

    @property
    def version(self) -> str:
        """Names the student that answers."""
        checkpoint = in_force(self._store, self._run)
        return "no student yet" if checkpoint is None else f"student {checkpoint.folder}"

    def known(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known without asking the student."""
        checkpoint = in_force(self._store, self._run)
        return {} if checkpoint is None else _read(self._file(checkpoint))

    def of(self, items: Sequence[Item]) -> Mapping[str, Mapping[str, Any]]:
        """The answers to these items; nothing where there is no student, or where it cannot be loaded."""
        checkpoint = in_force(self._store, self._run)
        if checkpoint is None:
            return {}
        with self._lock:
            known = _read(self._file(checkpoint))
            lacking = [item for item in items if item.key not in known]
            student = self._student(checkpoint) if lacking else None
            for start in range(0, 0 if student is None else len(lacking), PIECE):
                known |= _answers(student, lacking[start : start + PIECE])
                _write(self._file(checkpoint), known)
        return {item.key: known[item.key] for item in items if item.key in known}

    def _student(self, checkpoint: Checkpoint) -> Student | None:
        """The student of a checkpoint; one that cannot be loaded is told of once and not tried again."""
        if self._loaded is None or self._loaded[0] != checkpoint.id:
            try:
                student = self._trainer().student(self._folder / "checkpoints" / checkpoint.folder)
            except StudentError as error:
                self._say(f"  reviewers do not see what the student answers now: {error}")
                self._loaded = checkpoint.id, None
            else:
                self._loaded = checkpoint.id, student
        return self._loaded[1]

    def _file(self, checkpoint: Checkpoint) -> Path:
        return self._folder / "student-answers" / f"{checkpoint.id}.json"


def _answers(student: Student | None, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
    if student is None:
        return {}
    return {
        item.key: {
            "steps": list(said.explanation.steps),
            "answer": None if said.answer is None else said.answer.canonical,
        }
        for item, said in zip(items, student.predict(items), strict=True)
    }


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        known: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not there yet, or damaged: the student answers again
        return {}
    return known


def _write(file: Path, known: Mapping[str, Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(file, json.dumps(known, ensure_ascii=False))
