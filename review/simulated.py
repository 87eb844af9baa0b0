"""A simulated reviewer: works through the board like a person, with a known error rate. Its numbers are named so."""

import hashlib
import json
import math
import random
import uuid
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loop.answer import parse_answer, shown
from loop.config import TaskConfig
from loop.errors import BadConfig, BadRow
from loop.records import VerdictKind
from review.board import Board, OpenTask
from review.task import STEPS, form_of, result
from review.verdict import SIMULATED

SHOWN = 60
"""Characters of a wrong value that an error shows."""


@dataclass(frozen=True)
class Truth:
    """What is right about an item: an answer, steps that lead there, and the steps known to be wrong."""

    answer: str
    steps: tuple[str, ...]
    wrong: tuple[str, ...] = ()


def read_truth(file: Path) -> dict[str, Truth]:
    """The truth by item key, from a JSONL file that only the simulated reviewer opens.

    Raises:
        BadRow: the file cannot be read, or a line is not a truth; file, line and key are named.
    """
    try:
        lines = file.read_bytes().removeprefix(BOM_UTF8).splitlines()
    except OSError as error:
        raise BadRow(f"simulated_reviewer.truth: {file}: {error.strerror}") from error
    return dict(_truth(f"{file}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip())


def _truth(place: str, line: bytes) -> tuple[str, Truth]:
    """The key and the truth that a line holds."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRow(f"{place}: not UTF-8; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{place}: expected a JSON object with key, answer and steps ({error})") from error
    if not isinstance(row, dict):
        raise BadRow(f"{place}: expected a JSON object with key, answer and steps, found {_brief(row)}")
    if missing := [name for name in ("key", "answer", "steps") if name not in row]:
        raise BadRow(f"{place}: {missing[0]} is missing; a truth has key, answer and steps")
    key, answer = row["key"], row["answer"]
    if not isinstance(key, str):
        raise BadRow(f"{place}: key: expected the item's key as text, found {_brief(key)}; put it between quotes")
    endless = isinstance(answer, float) and not math.isfinite(answer)
    if endless or isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise BadRow(f"{place}: answer: expected text or a number, found {_brief(answer)}; put it between quotes")
    steps = _texts(f"{place}: steps", row["steps"])
    wrong = [] if row.get("wrong") is None else row["wrong"]
    return key, Truth(str(answer), steps, _texts(f"{place}: wrong", wrong))


def _texts(place: str, found: object) -> tuple[str, ...]:
    """A list of texts; a text alone would be read letter by letter."""
    if not isinstance(found, list):
        raise BadRow(f'{place}: expected a list of texts, found {_brief(found)}; write ["first step", "second step"]')
    if odd := next((each for each in enumerate(found, start=1) if not isinstance(each[1], str)), None):
        raise BadRow(f"{place}: number {odd[0]} is no text: {_brief(odd[1])}; put it between quotes")
    return tuple(found)


def _brief(found: object) -> str:
    """A value as its file has it, not longer than a line takes."""
    if isinstance(found, list | dict):
        return "a list" if isinstance(found, list) else "an object"
    said = json.dumps(found, ensure_ascii=False)
    return said if len(said) <= SHOWN else f"{said[:SHOWN]} …"


class SimulatedReviewer:
    """Judges open tasks against the truth; the same task always gets the same verdict."""

    def __init__(  # noqa: PLR0913 - what it is, and the settings of its table
        self,
        boards: Sequence[Board],
        truth: Mapping[str, Truth],
        task: TaskConfig,
        *,
        error_rate: float,
        seconds: float,
        seed: int,
        continue_share: float = 0.0,
    ) -> None:
        self._boards = boards
        self._truth = truth
        self._task = task
        self._error_rate = error_rate
        self._seconds = seconds
        self._seed = seed
        self._continue_share = continue_share

    def work(self) -> int:
        """Judge the open tasks whose truth is known; how many.

        Raises:
            BadConfig: there are open tasks, and the truth of none is known.
        """
        done, unknown = 0, []
        for board in self._boards:
            for task in board.open_tasks():
                key = task.data.get("item_key", "")
                truth = self._truth.get(key)
                if truth is None:
                    unknown.append(str(key))
                else:
                    self._judge(board, task, truth)
                    done += 1
        if unknown and not done:
            raise BadConfig(
                f"simulated_reviewer.truth has no row for {', '.join(unknown[:3])}{' …' * (len(unknown) > 3)} "
                f"({len(unknown)} items wait to be reviewed); add them to the file"
            )
        return done

    def _judge(self, board: Board, task: OpenTask, truth: Truth) -> None:
        chance = random.Random(f"{self._seed}/{task.uid}")
        right = self._is_right(task, truth)
        errs = chance.random() < self._error_rate
        if right != errs:
            verdict = result(VerdictKind.ACCEPT, note=SIMULATED)
        elif right:
            verdict = result(VerdictKind.REJECT, note=SIMULATED, reasons=["other"])
        elif random.Random(f"continue/{self._seed}/{task.uid}").random() < self._continue_share:
            verdict = result(VerdictKind.CONTINUE, steps=_corrected(task, truth), note=SIMULATED)
        else:
            answer = self._stated(task, truth)
            verdict = result(
                VerdictKind.EDIT, steps=truth.steps, answer=answer, note=SIMULATED, form=form_of(self._task)
            )
        digest = hashlib.sha256(f"{self._seed}/{task.uid}/{task.task}".encode()).digest()
        seconds = self._seconds * chance.uniform(0.5, 1.5)
        board.annotate(task.task, verdict, seconds=seconds, unique_id=str(uuid.UUID(bytes=digest[:16])))

    def _stated(self, task: OpenTask, truth: Truth) -> str:
        """The true answer as the page offers it."""
        choices = _choices(task.data["question"])
        answer = parse_answer(truth.answer, self._task.answer, choices=choices, labels=tuple(self._task.labels))
        return truth.answer if answer is None else shown(answer, choices)

    def _is_right(self, task: OpenTask, truth: Truth) -> bool:
        """The answer is the true one and no step is known to be wrong."""
        choices = _choices(task.data["question"])
        given, true = (
            parse_answer(text, self._task.answer, choices=choices, labels=tuple(self._task.labels))
            for text in (task.data["teacher_answer"], truth.answer)
        )
        wrong = {_plain(step) for step in truth.wrong}
        steps = {_plain(task.data[f"steptext_{place}"]) for place in range(STEPS)}
        return given is not None and given == true and not wrong & steps


def _corrected(task: OpenTask, truth: Truth) -> Sequence[str]:
    """The true steps up to the first one that the task has otherwise; all where it has only too many."""
    shown = [_plain(task.data[f"steptext_{place}"]) for place in range(STEPS)]
    wrong = (place for place, step in enumerate(truth.steps) if place >= STEPS or _plain(step) != shown[place])
    return truth.steps[: next(wrong, len(truth.steps)) + 1]


def _choices(question: str) -> list[str]:
    return [line[4:] for line in question.splitlines()[1:] if line[:1] == "(" and line[2:4] == ") "]


def _plain(text: str) -> str:
    return " ".join(text.split())
