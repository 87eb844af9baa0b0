"""A student answers a whole file, piece by piece; a run that was cut off goes on with the piece it was at.

What is done stands in a file beside the named one that takes its name at the end. Its own name holds a hash of
everything that shapes the answers, so that another student or another input never goes on with it. A piece is a pure
function of its rows and is redone whole, so the bytes are those of a run that was not cut off.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from connectors.files import Raw, reader_of
from connectors.rows import allowed_answer, checked
from connectors.students import Trained, item_of, loaded, refuse_too_long, temperature_of
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind, place_of, spans_of
from loop.calibration import tempered
from loop.config import TaskConfig
from loop.errors import BadRow, PreceptorError
from loop.interval import wilson
from loop.ports import Student
from loop.records import Item
from loop.stages.parts import PIECE


@dataclass
class Predicted:
    """What became of the rows."""

    file: Path
    rows: int = 0
    unread: int = 0
    bad: int = 0
    right: int = 0
    known: int = 0
    marks: tuple[int, int, int] = (0, 0, 0)
    """Of rows with the answer of a span task: right marks, marks that were given, marks of the file."""

    def summary(self) -> str:
        """A sentence for each thing that happened."""
        said = f"answered {self.rows - self.bad} of {self.rows} rows in {self.file}; bad rows: {self.bad}"
        if self.unread:
            said += f"; without an answer that can be read: {self.unread}"
        if not self.known:
            return said
        low, high = wilson(self.right, self.known)
        share = f"{self.right / self.known:.3f} ({low:.3f} to {high:.3f}, n={self.known})"
        said = f"{said}\naccuracy where the file gives the answer: {share}"
        right, given, known = self.marks
        if not given + known:
            return said
        f1 = 2 * right / (given + known)
        return f"{said}\nF1 of the marks: {f1:.3f} ({right} right of {given} given, {known} in the file)"


def predict(project: Project, which: Trained, file: Path, out: Path | None) -> Predicted:
    """Answer every row of a file; the figures are read off the finished file.

    Raises:
        BadRow: the file cannot be read or holds no rows.
        PreceptorError: the answers are there already, are being written by another process, or cannot be written.
    """
    read = reader_of(file)
    out = (out or file.with_name(f"{file.name}.answers.jsonl")).absolute()
    if not out.parent.is_dir():
        raise PreceptorError(f"{out}: there is no folder {out.parent}; make it, or name another file with --out")
    with _alone(project.folder, out):
        if out.exists():
            raise PreceptorError(f"{out}: exists already; remove it, or name another file with --out")
        total = sum(1 for _ in read(file))
        if not total:
            raise BadRow(f"{file}: no rows in it")
        partial = out.with_name(f".{out.name}.{_fingerprint(file, which, project)}.partial")
        try:
            _answer_all(project, which, read(file), total, partial)
            partial.replace(out)
        except OSError as error:
            raise PreceptorError(f"{out}: cannot be written ({error.strerror}); what is done is kept") from error
    return _counted(out)


def bad_rows(out: Path) -> Iterator[str]:
    """What was wrong with each row that could not be asked."""
    with out.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "error" in row:
                yield row["error"]


@contextmanager
def _alone(folder: Path, out: Path) -> Iterator[None]:
    """Two processes would write over each other."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(out).encode()).hexdigest()[:16]
    try:
        with FileLock(folder / f".predict-{name}.lock", timeout=0):
            yield
    except Timeout as error:
        raise PreceptorError(f"{out}: another process is writing it; wait for it, or name another --out") from error


def _answer_all(project: Project, which: Trained, rows: Iterator[Raw], total: int, partial: Path) -> None:
    """Go on after the last whole piece."""
    with partial.open("ab+") as sink:
        done = _keep_whole_pieces(sink)
        if done:
            project.progress.say(f"  goes on after row {done} of {total}")
        student, temperature = loaded(project, which), temperature_of(project, which)
        remaining = islice(rows, done, None)
        with project.progress.bar("student answers", total) as bar:
            bar.advance(done)
            while piece := list(islice(remaining, PIECE)):
                answers = _answered(student, which.config.task, piece, temperature=temperature)
                sink.write("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in answers).encode())
                sink.flush()
                os.fsync(sink.fileno())
                bar.advance(len(piece))


def _keep_whole_pieces(sink: BinaryIO) -> int:
    """Cut off what follows the last whole piece; how many rows are left."""
    sink.seek(0)
    end = rows = 0
    for lines, line in enumerate(sink, start=1):
        if lines % PIECE == 0 and line.endswith(b"\n"):
            end, rows = sink.tell(), lines
    sink.truncate(end)
    sink.seek(0, os.SEEK_END)
    return rows


def _answered(student: Student, task: TaskConfig, piece: Sequence[Raw], *, temperature: float) -> list[dict[str, Any]]:
    """A line for each row: its answer, or what is wrong with it."""
    lines: list[dict[str, Any]] = []
    told: list[tuple[int, Item, Answer | None]] = []
    for raw in piece:
        try:
            item, gold = _read(raw, task)
            refuse_too_long(student, item, raw.place)
            told.append((len(lines), item, gold))
            lines.append({"key": item.key})
        except BadRow as error:
            lines.append({"key": raw.fields.get("key"), "error": str(error)})
    items = [item for _, item, _ in told]
    if not items:
        return lines
    for (place, _, gold), given, shares in zip(told, student.predict(items), student.probabilities(items), strict=True):
        answer = given.answer
        lines[place] |= {"answer": None if answer is None else answer.value, "steps": list(given.explanation.steps)}
        if shares:
            sure = tempered(shares, temperature)
            lines[place]["probability"] = None if answer is None else round(sure[place_of(answer, task.labels)], 4)
        if gold is not None:
            lines[place]["right"] = answer == gold
        if gold is not None and gold.kind is AnswerKind.SPANS:
            given_marks, known = spans_of(answer) if answer else frozenset(), spans_of(gold)
            lines[place]["marks"] = [len(given_marks & known), len(given_marks), len(known)]
    return lines


def _read(raw: Raw, task: TaskConfig) -> tuple[Item, Answer | None]:
    """The item, and the answer where the row gives one."""
    item = item_of(raw, task)
    row = checked(raw)
    return item, allowed_answer(row, raw, task) if row.answer else None


def _counted(out: Path) -> Predicted:
    found = Predicted(out)
    with out.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            found.rows += 1
            found.bad += "error" in row
            found.unread += "answer" in row and row["answer"] is None
            found.known += "right" in row
            found.right += row.get("right", False)
            right, given, known = row.get("marks", (0, 0, 0))
            found.marks = found.marks[0] + right, found.marks[1] + given, found.marks[2] + known
    return found


def _fingerprint(file: Path, which: Trained, project: Project) -> str:
    """Changes with everything that shapes the answers: the input, the student and how it runs."""
    digest = hashlib.sha256()
    for part in sorted(file.rglob("*")) if file.is_dir() else [file]:
        if part.is_file():
            with part.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    today = project.config.student
    student = [which.name, which.checkpoint.id, str(which.checkpoint.created_at), which.checkpoint.card]
    how = [
        today.engine,
        today.generation_batch,
        which.config.task.model_dump(mode="json"),
        temperature_of(project, which),
    ]
    digest.update(json.dumps([str(file), student, how], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]
