"""Ask the judge about rationales, one step after another, for many rationales at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from loop.config import JudgeConfig, TaskConfig
from loop.ports import Bar, JudgeBook, Request, Teacher
from loop.records import Item, Judgement, Rationale, StepVerdict
from loop.teacher.judge_prompt import judged_steps, read_verdict, step_request
from loop.teacher.prompt import prompt_of
from loop.teacher.reply import Unreadable
from loop.teacher.send import Received, Sender, Sleep, as_stored

HOLDS = frozenset({StepVerdict.OK, StepVerdict.REDUNDANT})
"""After these the next step is looked at."""
Todo = tuple[Item, Rationale, Sequence[Judgement]]
"""A rationale of an item, and what of it was judged before."""


@dataclass
class JudgeOutcome:
    """What came of judging: steps judged now, replies that could not be read, and requests that were given up."""

    steps: int = 0
    unreadable: int = 0
    gave_up: int = 0
    budget_spent: bool = False

    def __add__(self, other: "JudgeOutcome") -> "JudgeOutcome":
        """What came of both."""
        return JudgeOutcome(
            self.steps + other.steps,
            self.unreadable + other.unreadable,
            self.gave_up + other.gave_up,
            self.budget_spent or other.budget_spent,
        )


async def judge(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Todo],
    endpoint: Teacher,
    book: JudgeBook,
    task: TaskConfig,
    config: JudgeConfig,
    *,
    round_id: int,
    bar: Bar,
    sleep: Sleep = asyncio.sleep,
) -> JudgeOutcome:
    """Have each rationale judged up to its first step that does not hold, and write down what comes back.

    A step whose reply is stored is not asked about again. Where a reply cannot be read or does not come, the rest of
    the rationale is left alone: what follows stands on that step.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    judging = _Judging(book, task, config, round_id)
    sender = Sender(endpoint, book, config, sleep, judging.give_up)
    await sender.work(todo, lambda each: judging.go_through(sender, each), bar)
    judging.outcome.budget_spent = sender.budget_spent
    return judging.outcome


def is_read(item: Item, rationale: Rationale, before: Sequence[Judgement], config: JudgeConfig) -> bool:
    """Whether the judge has said all about a rationale that it ever will."""
    said = {each.step: each.verdict for each in before}
    for number, _ in judged_steps(item, rationale)[: config.max_steps]:
        if said.get(number) not in HOLDS:
            return number in said
    return True


@dataclass
class _Judging:
    """One call of `judge`: what its requests share."""

    book: JudgeBook
    task: TaskConfig
    config: JudgeConfig
    round_id: int
    outcome: JudgeOutcome = field(default_factory=JudgeOutcome)

    async def go_through(self, sender: Sender, todo: Todo) -> None:
        """Ask about one step after another until one does not hold."""
        item, rationale, before = todo
        known = {each.step: each for each in before}
        accepted: list[str] = []

        for number, step in judged_steps(item, rationale)[: self.config.max_steps]:
            if number not in known:
                request = step_request(item, accepted, number, step, self.task, self.config)
                purpose = f"judge/{self.round_id}/{item.key}/{number}"
                await sender.send(request, purpose, partial(self._keep, request, rationale, known))
            if number not in known or known[number].verdict not in HOLDS:
                return
            accepted.append(step)

    def give_up(self, request: Request, problem: str) -> None:  # noqa: ARG002 - the sender's signature
        """The step stays unjudged: that says nothing about the rationale."""
        self.outcome.gave_up += 1

    def _keep(self, request: Request, rationale: Rationale, known: dict[int, Judgement], received: Received) -> None:
        """Settle, and store what the judge said in the same transaction."""
        assert rationale.id is not None
        completion, prompt = received.completion, prompt_of(request)
        said = read_verdict(completion)
        judgement = Judgement(
            rationale_id=rationale.id,
            step=request.sample,
            **as_stored(received),
            remembered=received.remembered,
            saved=received.saved,
        )
        if isinstance(said, Unreadable):
            judgement.problem = said.problem
        else:
            judgement.verdict, judgement.evidence, judgement.confidence = said.verdict, said.evidence, said.confidence
        self.book.keep(received.charge_id, received.micro_usd, prompt, judgement)
        known[judgement.step] = judgement
        self.outcome.steps += 1
        self.outcome.unreadable += judgement.verdict is None
