"""The teacher checks the student's own explanation and puts it right from the first wrong step on (CLEAR).

What it accepts stays in the student's words. It never sees the student's answer: where it finds no step wrong, it is
asked where the steps lead, and only then are both answers compared. Each request is the same whenever it is made again,
so replies are found by the hash of their prompts, and whoever was cut off pays for none twice.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from loop.answer import Answer
from loop.config import TaskConfig, TeacherConfig
from loop.ports import Completion, Explanation, Progress, Request, RevisionBook, Teacher
from loop.records import Author, Item, Rationale, Revision, RevisionReply
from loop.teacher.continuation import continuation_request
from loop.teacher.prompt import Price, prompt_of
from loop.teacher.reply import Draft, Unreadable, read
from loop.teacher.revision_prompt import Checked, check_request, checkable, read_check, read_whole, whole_request
from loop.teacher.send import BYTES_PER_TOKEN, Received, Sender, Sleep, as_stored

MOST_CORRECTIONS = 3
"""After so many the teacher writes the rest, whoever was to."""
VERDICT, ANSWER = 60, 20
"""Tokens of what is said of a step, and of an answer, to tell what a way costs."""
DEGENERATED = 0.8
"""From this share of replaced steps on, revising is explaining anew at a detour."""
Found = TypeVar("Found")
Stored = Mapping[str, Mapping[str, RevisionReply]]
"""The replies that are there, by item and by the hash of the prompt."""
GoOn = Callable[[Item, Sequence[str]], Explanation]
"""How the student goes on from steps."""


class Way(StrEnum):
    """How an explanation is checked, and who writes what follows a corrected step."""

    ONE_SHOT = "one_shot"
    TEACHER_FINISH = "teacher_finish"
    STUDENT_CONTINUE = "student_continue"


@dataclass(frozen=True)
class Todo:
    """The student's explanation of an item, and the way in which it is checked."""

    item: Item
    explanation: Explanation
    way: Way
    expected: Mapping[Way, int]

    @property
    def steps(self) -> list[str]:
        """As the teacher sees them."""
        return steps_of(self.item, self.explanation)


@dataclass
class RevisionOutcome:
    """What came of revising: explanations put right or confirmed, and those that are explained anew instead."""

    revised: int = 0
    gave_up: int = 0
    budget_spent: bool = False


def steps_of(item: Item, explanation: Explanation) -> list[str]:
    """The steps that say more than the answer, without what states it."""
    return checkable(item, explanation.steps, explanation.answer)


def expected_costs(
    item: Item, steps: Sequence[str], task: TaskConfig, teacher: TeacherConfig, price: Price, *, wrong: float
) -> dict[Way, int]:
    """Micro-dollars that each way is expected to cost, where a step is wrong with this chance after right ones.

    Input counts in full each time it is sent, as the ledger charges it. The price of a rest is that of the student's.
    """
    sizes = [_tokens(step) for step in steps]
    reached = [(1 - wrong) ** at for at in range(len(steps) + 1)]
    first = [*(chance * wrong for chance in reached[:-1]), reached[-1]]
    asked = check_request(item, (), "", task, teacher)
    checks = [
        price(asked, input_tokens=_input(asked) + sum(sizes[: at + 1]), output_tokens=VERDICT)
        for at in range(len(steps))
    ]
    rest = continuation_request(item, (), task, teacher)
    finishes = [
        price(rest, input_tokens=_input(rest) + sum(sizes[:at]), output_tokens=sum(sizes[at:]) + ANSWER)
        for at in range(1, len(steps) + 1)
    ]
    finishes.append(finishes[-1])
    whole, anew = (
        whole_request(item, steps, task, teacher),
        sum(chance * sum(sizes[at:]) for at, chance in enumerate(first)),
    )
    return {
        Way.ONE_SHOT: price(whole, input_tokens=_input(whole), output_tokens=round(anew) + VERDICT + ANSWER),
        Way.TEACHER_FINISH: round(_sum(reached, checks) + _sum(first, finishes)),
        Way.STUDENT_CONTINUE: sum(checks) + finishes[-1],
    }


async def revise(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Todo],
    teacher: Teacher,
    book: RevisionBook,
    task: TaskConfig,
    config: TeacherConfig,
    *,
    round_id: int,
    stored: Stored,
    go_on: GoOn,
    progress: Progress,
    sleep: Sleep = asyncio.sleep,
) -> RevisionOutcome:
    """Check each explanation and write down what comes of it. What was not asked is left for the next call.

    A reply that cannot be read ends an item's revision; it is explained anew then.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    revising = _Revising(book, task, config, round_id, stored, go_on)
    sender = Sender(teacher, book, config, sleep, revising.give_up)
    with progress.bar("student's explanations are revised", len(todo)) as bar:
        await sender.work(todo, lambda each: revising.go_through(sender, each), bar)
    revising.outcome.budget_spent = sender.budget_spent
    return revising.outcome


@dataclass(frozen=True)
class _Result:
    """The revised rationale."""

    steps: Sequence[str]
    answer: Answer
    stated: str
    kept: int
    first_wrong: int | None = None
    corrections: int = 0


class _Failed(Exception):
    """Nothing comes of revising an item."""


class _NoReply(Exception):
    """No reply came, which may be otherwise next time."""


@dataclass
class _Revising:
    """One call of `revise`: what its requests share."""

    book: RevisionBook
    task: TaskConfig
    config: TeacherConfig
    round_id: int
    stored: Stored
    go_on: GoOn
    outcome: RevisionOutcome = field(default_factory=RevisionOutcome)
    refused: dict[str, str] = field(default_factory=dict)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The student writes for one item at a time."""

    async def go_through(self, sender: Sender, todo: Todo) -> None:
        """Revise one explanation, and store what came of it."""
        one = _One(self, sender, todo)
        try:
            result = await (one.at_once() if todo.way is Way.ONE_SHOT else one.step_by_step())
        except _NoReply:
            return
        except _Failed as failed:
            self.outcome.gave_up += 1
            self._settle(todo, None, str(failed))
        else:
            self.outcome.revised += 1
            self._settle(todo, result, None)

    def give_up(self, request: Request, problem: str) -> None:
        """No reply will come."""
        self.refused[request.item_key] = problem

    def _settle(self, todo: Todo, result: _Result | None, problem: str | None) -> None:
        explanation = todo.explanation
        revision = Revision(
            round_id=self.round_id,
            item_key=todo.item.key,
            way=todo.way.value,
            expected={way.value: cost for way, cost in todo.expected.items()},
            steps=len(todo.steps),
            problem=problem,
            created_at=datetime.now(UTC),
        )
        own = Rationale(
            item_key=todo.item.key,
            round_id=self.round_id,
            author=Author.STUDENT,
            steps=list(explanation.steps),
            answer=None if explanation.answer is None else explanation.answer.canonical,
            stated="" if explanation.answer is None else explanation.answer.value,
        )
        if result is None:
            self.book.settle_on(revision, own, None)
            return
        revision.kept, revision.first_wrong, revision.corrections = result.kept, result.first_wrong, result.corrections
        revised = Rationale(
            item_key=todo.item.key,
            round_id=self.round_id,
            author=Author.TEACHER,
            steps=list(result.steps),
            answer=result.answer.canonical,
            stated=result.stated,
            teacher=self.config.model,
        )
        self.book.settle_on(revision, own, revised)


@dataclass
class _One:
    """The revision of one explanation."""

    shared: _Revising
    sender: Sender
    todo: Todo

    async def at_once(self) -> _Result:
        """All steps in one request."""
        item, steps, task = self.todo.item, self.todo.steps, self.shared.task
        completion = await self._said(whole_request(item, steps, task, self.shared.config))
        found = _readable(read_whole(completion, item, steps, task))
        if found.first_wrong is None:
            return await self._confirmed(steps, self.todo.explanation, found.draft, len(steps))
        return self._result(found.draft, kept=found.first_wrong, first_wrong=found.first_wrong, corrections=1)

    async def step_by_step(self) -> _Result:
        """One step after another; who writes what follows a corrected one is the way's."""
        explanation, queue = self.todo.explanation, self.todo.steps
        accepted: list[str] = []
        first: int | None = None
        corrections = 0
        while queue and len(accepted) < self.shared.task.max_steps - 1:
            step = queue.pop(0)
            said = await self._checked(accepted, step)
            accepted.append(step if said.holds else said.corrected)
            if said.holds:
                continue
            first, corrections = (len(accepted) - 1 if first is None else first), corrections + 1
            if self.todo.way is Way.TEACHER_FINISH or corrections == MOST_CORRECTIONS:
                queue = [step]  # is not checked: the teacher writes the rest
                break
            explanation = await self._gone_on(accepted)
            rest = Explanation(explanation.steps[len(accepted) :], explanation.answer)
            queue = steps_of(self.todo.item, rest)
        draft = await self._finished(accepted)
        kept = len(accepted) if first is None else first
        if queue:
            return self._result(draft, kept=kept, first_wrong=first, corrections=corrections)
        return await self._confirmed(accepted, explanation, draft, kept, first, corrections)

    async def _confirmed(
        self,
        steps: Sequence[str],
        explanation: Explanation,
        draft: Draft,
        kept: int,
        first: int | None = None,
        corrections: int = 0,
    ) -> _Result:
        """Steps that all hold: as they are where they lead to the student's answer, else with a new last one."""
        if draft.answer is not None and draft.answer == explanation.answer:
            own = explanation.steps if first is None else tuple(steps)
            return _Result(own, draft.answer, draft.stated, kept, first, corrections)
        if len(steps) > 1:
            draft = await self._finished(steps[:-1])
            kept = min(kept, len(steps) - 1)
        return self._result(draft, kept=kept, first_wrong=first, corrections=corrections)

    def _result(self, draft: Draft, **counts: int | None) -> _Result:
        if draft.answer is None:
            raise _Failed(f"the reply ends in no allowed answer: {draft.stated[:80]}")
        return _Result(draft.steps, draft.answer, draft.stated, **counts)  # type: ignore[arg-type]

    async def _checked(self, accepted: Sequence[str], step: str) -> Checked:
        request = check_request(self.todo.item, accepted, step, self.shared.task, self.shared.config)
        return _readable(read_check(await self._said(request), step))

    async def _finished(self, accepted: Sequence[str]) -> Draft:
        """What the teacher goes on to from accepted steps."""
        request = continuation_request(self.todo.item, accepted, self.shared.task, self.shared.config)
        return _readable(read(await self._said(request), self.todo.item, self.shared.task, prefix=accepted))

    async def _gone_on(self, accepted: Sequence[str]) -> Explanation:
        """What the student goes on to."""
        async with self.shared.writing:
            return await asyncio.to_thread(self.shared.go_on, self.todo.item, accepted)

    async def _said(self, request: Request) -> Completion:
        """The reply to a request: the one stored, or the one that comes now."""
        item, prompt = self.todo.item, prompt_of(request)
        known = self.shared.stored.get(item.key, {}).get(prompt.hash)
        if known is not None:
            return Completion(known.text, known.model, known.finish_reason, known.input_tokens, known.output_tokens)
        came: list[Completion] = []

        def keep(received: Received) -> None:
            row = self._row(received)
            self.shared.book.keep(received.charge_id, received.micro_usd, prompt, row)
            came.append(received.completion)

        purpose = f"revise/{self.shared.round_id}/{item.key}/{prompt.hash[:12]}"
        await self.sender.send(request, purpose, keep)
        if came:
            return came[0]
        problem = self.shared.refused.get(item.key, "")
        if problem and not self.sender.budget_spent:
            raise _Failed(problem)
        raise _NoReply

    def _row(self, received: Received) -> RevisionReply:
        return RevisionReply(
            round_id=self.shared.round_id,
            item_key=self.todo.item.key,
            **as_stored(received),
            remembered=received.remembered,
            saved=received.saved,
        )


def _readable(found: Found | Unreadable) -> Found:
    """What was read, where it could be."""
    if isinstance(found, Unreadable):
        raise _Failed(found.problem)
    return found


def _sum(chances: Sequence[float], costs: Sequence[int]) -> float:
    return sum(chance * cost for chance, cost in zip(chances, costs, strict=False))


def _input(request: Request) -> int:
    return sum(_tokens(message["content"]) for message in request.messages)


def _tokens(text: str) -> int:
    return len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN + 1
