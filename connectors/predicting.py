"""A student answers a whole file, piece by piece; a run that was cut off goes on with the piece it was at.

What is done stands in a file beside the named one that takes its name at the end. Its own name holds a hash of
everything that shapes the answers, so that another student or another input never goes on with it. A piece is a pure
function of its rows and is redone whole, so the bytes are those of a run that was not cut off.
"""

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from connectors.files import Raw, reader_of
from connectors.predict_escalation import Asked, Unsure, ask_about, rows_of
from connectors.rows import allowed_answer, checked
from connectors.students import Trained, item_of, loaded, refuse_too_long, temperature_of
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind, place_of, spans_of
from loop.calibration import tempered
from loop.config import QueryConfig, TaskConfig
from loop.errors import BadRow, PreceptorError
from loop.interval import wilson
from loop.ledger import MICRO
from loop.plain import storable
from loop.ports import Student
from loop.records import Item, Split
from loop.stages.measuring import agreement
from loop.stages.parts import PIECE
from loop.store import items
from loop.store.database import Store

TABLES = (".csv", ".tsv", ".parquet", ".xlsx")
"""Ends of names that promise another form than JSON lines."""


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
    asked: int = 0
    """Rows that the teacher was asked about."""
    taken: int = 0
    """Those of them that have its answer."""
    usd: float = 0.0
    right_alone: int = 0
    """Rows that are right as the student alone answers them."""
    of_run: int = 0
    """Rows whose answer the file gives, and whose text stands in the run's pool or seed."""

    def summary(self) -> str:
        """A sentence for each thing that happened."""
        said = f"answered {self.rows - self.bad} of {self.rows} rows in {self.file}; bad rows: {self.bad}"
        if self.unread:
            said += f"; without an answer that can be read: {self.unread}"
        if self.asked:
            said += f"\nthe teacher was asked about {self.asked} rows for ${self.usd:.4f}; {self.taken} have its answer"
        if not self.known:
            return said
        low, high = wilson(self.right, self.known)
        share = f"{self.right / self.known:.3f} ({low:.3f} to {high:.3f}, n={self.known})"
        said = f"{said}\naccuracy where the file gives the answer: {share}"
        if self.asked:
            said += f"; the student alone: {self.right_alone / self.known:.3f}"
        if self.of_run:
            said += (
                f"\n{self.of_run} of these {self.known} rows stand in the run's pool or seed, so the student may have "
                "learned them, and the accuracy says little of rows that are new to it"
            )
        right, given, known = self.marks
        if not given + known:
            return said
        f1 = 2 * right / (given + known)
        return f"{said}\nF1 of the marks: {f1:.3f} ({right} right of {given} given, {known} in the file)"


def predict(
    project: Project, which: Trained, file: Path, out: Path | None, threshold: float | None = None
) -> Predicted:
    """Answer every row of a file; the figures are read off the finished file.

    Rows of which the student is less sure than the threshold go to the teacher, within the run's budget.

    Raises:
        BadRow: the file cannot be read or holds no rows.
        PreceptorError: the answers are there already, are being written by another process, or cannot be written; or
            the budget is spent before all of these rows were asked about.
        TeacherDown, TeacherRefused, UnknownPrice: as when asking.
    """
    read = reader_of(file)
    whole = file.absolute()
    out = (out or whole.with_name(f"{whole.name}.answers.jsonl")).absolute()
    if out.suffix.lower() in TABLES:
        raise PreceptorError(f"{out}: answers are written as JSON lines; name a file that ends with .jsonl")
    if not out.parent.is_dir():
        raise PreceptorError(f"{out}: there is no folder {out.parent}; make it, or name another file with --out")
    with _alone(project.folder, out):
        if out.exists():
            raise PreceptorError(f"{out}: exists already; remove it, or name another file with --out")
        total = sum(1 for _ in read(file))
        if not total:
            raise BadRow(f"{file}: no rows in it")
        mark = _fingerprint(file, which, project, sampled=threshold is not None)
        partial, kept = (out.with_name(f".{out.name}.{mark}.{kind}") for kind in ("partial", "asked"))
        try:
            _answer_all(project, which, read(file), total, partial, sampled=threshold is not None)
            if threshold is None:
                partial.replace(out)
            else:
                task = which.config.task
                unsure = list(_unsure(partial, read(file), task, threshold, rows_of(kept)))
                asked = ask_about(project, task, unsure, kept, threshold)
                _refuse_what_is_open(asked, threshold)
                _put_in(partial, asked, read(file), task).replace(out)
                kept.unlink()
            for stale in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):  # of earlier students, and this one's
                stale.unlink()
        except OSError as error:
            raise PreceptorError(f"{out}: cannot be written ({error.strerror}); what is done is kept") from error
    return _counted(out)


def bad_rows(out: Path) -> Iterator[str]:
    """What was wrong with each row that could not be asked."""
    for line in _lines(out):
        if "error" in line:
            yield line["error"]


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


def _answer_all(
    project: Project, which: Trained, rows: Iterator[Raw], total: int, partial: Path, *, sampled: bool
) -> None:
    """Go on after the last whole piece."""
    with partial.open("ab+") as sink:
        done = _keep_whole_pieces(sink)
        if done:
            project.progress.say(f"  goes on after row {done} of {total}")
        student, temperature = loaded(project, which), temperature_of(project, which)
        samples = _Samples(which.config.query, project.config.run.seed) if sampled else None
        remaining = islice(rows, done, None)
        with project.progress.bar("student answers", total) as bar:
            bar.advance(done)
            while piece := list(islice(remaining, PIECE)):
                answers = _answered(
                    student, which.config.task, piece, samples, temperature=temperature, store=project.store
                )
                sink.write("".join(storable(json.dumps(each, ensure_ascii=False)) + "\n" for each in answers).encode())
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


@dataclass(frozen=True)
class _Samples:
    """How a student is sampled that cannot say how probable its answers are."""

    query: QueryConfig
    seed: int

    def agreeing(
        self, student: Student, items: Sequence[Item], answers: Sequence[Answer | None]
    ) -> list[tuple[float, ...]]:
        """Of each item, the shares of its answer and of others among the samples."""
        query = self.query
        drawn = student.explain(
            items,
            copies=range(1, query.samples + 1),
            temperature=query.temperature,
            top_p=query.top_p,
            seed=self.seed,
        )
        pairs = zip(answers, drawn, strict=True)
        return [tuple(agreement(answer, [each.answer for each in own])) for answer, own in pairs]


def _answered(
    student: Student,
    task: TaskConfig,
    piece: Sequence[Raw],
    samples: _Samples | None,
    *,
    temperature: float,
    store: Store,
) -> list[dict[str, Any]]:
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
            key = raw.fields.get("key")
            lines.append({"key": key if isinstance(key, str | int) else None, "error": str(error)})
    asked = [item for _, item, _ in told]
    if not asked:
        return lines
    answered, known = student.predict(asked), student.probabilities(asked)
    direct = any(known)
    if samples is not None and not direct:
        known = samples.agreeing(student, asked, [each.answer for each in answered])
    in_run = items.by_hash(store, {item.text_hash for item in asked})
    for (place, item, gold), given, shares in zip(told, answered, known, strict=True):
        answer = given.answer
        lines[place] |= {"answer": None if answer is None else answer.value, "steps": list(given.explanation.steps)}
        if shares:
            sure, own = tempered(shares, temperature), place_of(answer, task.labels) if answer and direct else 0
            lines[place]["probability"] = None if answer is None else round(sure[own], 4)
        lines[place] |= _graded(answer, gold)
        if item.text_hash in in_run and in_run[item.text_hash].split is not Split.HOLDOUT:
            lines[place]["in_run"] = True
    return lines


def _graded(answer: Answer | None, gold: Answer | None) -> dict[str, Any]:
    """Whether an answer is right, where that is known."""
    if gold is None:
        return {}
    found: dict[str, Any] = {"right": answer == gold}
    if gold.kind is AnswerKind.SPANS:
        given, known = spans_of(answer) if answer else frozenset(), spans_of(gold)
        found["marks"] = [len(given & known), len(given), len(known)]
    return found


def _unsure(
    answered: Path, rows: Iterator[Raw], task: TaskConfig, threshold: float, replied: Set[int]
) -> Iterator[Unsure]:
    """The rows that are answered with less confidence than the threshold, and those of which there is a reply."""
    for place, (line, raw) in enumerate(zip(_lines(answered), rows, strict=True)):
        sure = line.get("probability") or 0.0
        if "error" not in line and (sure < threshold or place in replied):
            yield Unsure(place, _read(raw, task)[0], sure)


def _refuse_what_is_open(asked: Asked, threshold: float) -> None:
    """The least sure rows were asked about first, so that a lower threshold has all of its own.

    Raises:
        PreceptorError: the budget is spent before all rows were asked about.
    """
    if asked.out_of_money:
        least = min(each.probability for each in asked.out_of_money)
        raise PreceptorError(
            f"the budget is spent: {len(asked.out_of_money)} rows below {threshold:g} were not asked about; raise "
            f"budget.usd and call it again, or take what was paid for with --threshold {least:g}. What came is kept"
        )


def _put_in(answered: Path, asked: Asked, rows: Iterator[Raw], task: TaskConfig) -> Path:
    """A file with the teacher's answers in the place of the student's, whose own stand beside them."""
    whole = answered.with_suffix(".whole")
    with whole.open("w", encoding="utf-8") as sink:
        for place, (line, raw) in enumerate(zip(_lines(answered), rows, strict=True)):
            reply = asked.replies.get(place)
            own = {
                name: line.pop(name) for name in ("answer", "steps", "probability", "right", "marks") if name in line
            }
            if "error" in line:
                new = line
            elif reply is None or "answer" not in reply:
                problem = asked.problems.get(place) if reply is None else reply["problem"]
                new = line | own | {"by": "student"} | ({"problem": problem} if problem else {})
            else:
                answer = Answer(kind=task.answer, value=reply["answer"])
                new = line | {"answer": answer.value, "steps": reply["steps"]} | _graded(answer, _read(raw, task)[1])
                new |= {"by": reply["by"], "student": own}
            if reply is not None or place in asked.micro_usd:
                new["usd"] = asked.micro_usd.get(place, 0) / MICRO
            sink.write(storable(json.dumps(new, ensure_ascii=False)) + "\n")
        sink.flush()
        os.fsync(sink.fileno())
    return whole


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _read(raw: Raw, task: TaskConfig) -> tuple[Item, Answer | None]:
    """The item, and the answer where the row gives one."""
    item = item_of(raw, task)
    row = checked(raw)
    return item, allowed_answer(row, raw, task) if row.answer else None


def _counted(out: Path) -> Predicted:
    found = Predicted(out)
    for line in _lines(out):
        alone = line.get("student", line)
        found.rows += 1
        found.bad += "error" in line
        found.unread += "answer" in line and line["answer"] is None
        found.known += "right" in line
        found.right += line.get("right", False)
        found.of_run += "right" in line and "in_run" in line
        found.right_alone += alone.get("right", False)
        found.asked += "usd" in line
        found.taken += "student" in line
        found.usd += line.get("usd", 0.0)
        right, given, known = line.get("marks", (0, 0, 0))
        found.marks = found.marks[0] + right, found.marks[1] + given, found.marks[2] + known
    return found


def _fingerprint(file: Path, which: Trained, project: Project, *, sampled: bool) -> str:
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
        which.config.query.model_dump(mode="json") if sampled else None,
    ]
    digest.update(json.dumps([str(file), student, how], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]
