"""A short practice set: word problems whose right verdicts are known, on the reviewers' own page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice

from connectors.demo.problems import CAMPAIGN, Problem, problems
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind
from loop.checks.planted import ErrorKind, plant
from loop.config import TaskConfig
from loop.records import Author, Flag, Item, Rationale, ReviewTask, Split, Verdict, VerdictKind
from review.board import Board, BoardTask, RawVerdict
from review.task import Details, board_task
from review.verdict import interpret

TASK = TaskConfig(answer=AnswerKind.NUMBER)


@dataclass(frozen=True)
class Case:
    """A problem, what the page says about it, and what a reviewer should make of it."""

    uid: str
    question: str
    steps: Sequence[str]
    answer: int
    expected: VerdictKind
    because: str
    doubt: tuple[int | None, str] | None = None
    """A step, 0-based, or None for all of it, and the evidence."""

    @property
    def item(self) -> Item:
        """The problem as an item."""
        return Item(key=self.uid, question=self.question, split=Split.POOL, text_hash="")

    def task(self) -> BoardTask:
        """The case as reviewers see it."""
        value = Answer(kind=AnswerKind.NUMBER, value=str(self.answer)).canonical
        rationale = Rationale(
            item_key=self.uid, round_id=0, author=Author.TEACHER, steps=list(self.steps), answer=value
        )  # fmt: skip
        review = ReviewTask(rationale_id=0, round_id=0, uid=self.uid, reason="practice")
        step, evidence = self.doubt or (None, "")
        flag = Flag(rationale_id=0, check_name="practice", step=step, evidence=evidence, weight=0.5)
        return board_task(review, rationale, self.item, Details(flags=(flag,) if self.doubt else ()), TASK)

    def mistake(self, verdict: Verdict) -> str | None:
        """What is not as expected about a verdict."""
        right = Answer(kind=AnswerKind.NUMBER, value=str(self.answer)).canonical
        if verdict.kind is VerdictKind.CONTINUE and self.expected is VerdictKind.EDIT:
            return None
        if verdict.kind is not self.expected:
            return f"{verdict.kind or 'no verdict'}, but {self.expected} is right: {self.because}"
        if verdict.kind is VerdictKind.EDIT and verdict.answer != right:
            return f"the corrected answer is not {self.answer}"
        return None


def practice(project: Project) -> str:
    """Put the practice set on the board once; how each reviewer did so far."""
    board = project.practice_board(TASK)
    known = cases()
    board.put([case.task() for case in known])
    lines = _judged(board, known) or ["nobody has practised yet"]
    return "\n".join([*lines, f"{len(known)} practice tasks stand at {board.address()}; call this again afterwards"])


def cases() -> list[Case]:
    """Five cases: right, a wrong step that is doubted, right but doubted, a wrong step nobody saw, a bad question."""
    right, doubted, alarm, unseen, bad = islice(problems(CAMPAIGN, "practice"), 5)
    return [
        Case("practice/1", right.question, right.steps, right.answer, VerdictKind.ACCEPT, "answer and steps are right"),
        _planted("practice/2", doubted, ErrorKind.ARITHMETIC),
        Case(
            "practice/3", alarm.question, alarm.steps, alarm.answer, VerdictKind.ACCEPT,
            "the doubt is a false alarm, answer and steps are right",
            doubt=(None, f"8 of 10 explanations of the student answer {alarm.answer + 1}, not {alarm.answer}"),
        ),
        _planted("practice/4", unseen, ErrorKind.QUANTITY),
        Case(
            "practice/5", f"{bad.question.split(' . ')[0]} . How many are left ?", bad.steps, bad.answer,
            VerdictKind.REJECT, "the question does not say enough, the steps use numbers that it does not give",
        ),
    ]  # fmt: skip


def _planted(uid: str, problem: Problem, kind: ErrorKind) -> Case:
    """A problem with an error in one step; the page doubts errors in arithmetic, the others a reviewer has to find."""
    planted = (plant(problem.steps, seed=seed) for seed in count())
    found = next(each for each in planted if each is not None and each.kind is kind)
    because = f"step {found.step + 1} says {found.after} where {found.before} is right"
    doubt = (found.step, f"the step says {found.after}, it is {found.before}") if kind is ErrorKind.ARITHMETIC else None
    return Case(uid, problem.question, found.steps, problem.answer, VerdictKind.EDIT, because, doubt)


def _judged(board: Board, known: Sequence[Case]) -> list[str]:
    """For each reviewer how many cases were judged as expected, and what was wrong about the others."""
    newest = {(raw.reviewer, raw.uid): raw for raw in sorted(board.changed(None), key=lambda raw: raw.updated_at)}
    lines: list[str] = []
    for reviewer in sorted({reviewer for reviewer, _ in newest}):
        done = [(case, newest[reviewer, case.uid]) for case in known if (reviewer, case.uid) in newest]
        wrong = [f"  {case.uid}: {told}" for case, raw in done if (told := _mistake(case, raw, board))]
        lines += [f"reviewer {reviewer}: {len(done) - len(wrong)} of {len(done)} as expected", *wrong]
    return lines


def _mistake(case: Case, raw: RawVerdict, board: Board) -> str | None:
    return case.mistake(interpret(raw, board.name, None, case.item, TASK))
