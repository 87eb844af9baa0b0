"""A cascade of teachers: a doubtful rationale goes on to a stronger one where that is worth its price.

As in FrugalGPT (Chen and others, 2023): the cheap teacher answers everything, and what it answers is scored; a dearer
one is asked only where the score is bad. The gain of asking is the chance that its rationale is right less the chance
that the present one is, times what a wrong rationale costs: a person's minutes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from loop.config import BudgetConfig, StrongerConfig, TaskConfig
from loop.ports import AskBook, Progress, Teacher
from loop.records import STRONGER, Item, Rationale, Reply
from loop.teacher.ask import Demonstrations, draft_of, rationale_of, reply_row
from loop.teacher.confidence import Trust, Verdicted
from loop.teacher.demonstrations import with_one_less
from loop.teacher.prompt import prompt_of, request_for
from loop.teacher.reply import read
from loop.teacher.send import Received, Sender, Sleep, nobody_is_told

PRIOR_WEIGHT = 10
"""`expected_right` counts as so many verdicts."""


def share_right(expected: float, verdicts: Sequence[Verdicted]) -> float:
    """How often a teacher's rationales are right: by the verdicts on them, and by what is expected before there are."""
    weights = sum(each.weight for each in verdicts)
    right = sum(each.weight for each in verdicts if each.right) / weights if weights else 0.0
    return (PRIOR_WEIGHT * expected + len(verdicts) * right) / (PRIOR_WEIGHT + len(verdicts))


def worth_of_a_right_one(minutes_per_review: float, budget: BudgetConfig) -> float:
    """Micro-dollars that a person costs who puts a rationale right.

    By the price of an hour of review; without one, by what both budgets come to a minute. Without reviewers a right
    rationale is worth all that is left to pay for it.
    """
    if budget.usd_per_review_hour is not None:
        return minutes_per_review / 60 * budget.usd_per_review_hour * 1e6
    return minutes_per_review * budget.usd / budget.minutes * 1e6 if budget.minutes else float("inf")


def is_worth_it(now: float, then: float, worth: float, price: float) -> bool:
    """Whether the gain in the chance of being right, in micro-dollars, is above the price."""
    return then > now and (then - now) * worth > price


async def escalate(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Item],
    teacher: Teacher,
    book: AskBook,
    task: TaskConfig,
    config: StrongerConfig,
    *,
    level: int,
    round_id: int,
    demonstrations: Demonstrations,
    progress: Progress,
    sleep: Sleep = asyncio.sleep,
) -> bool:
    """Ask the stronger teacher of this level, counted from 0, and store what it says; whether the budget sufficed.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    asking = _Escalating(book, task, config, round_id, level, demonstrations)
    sender = Sender(teacher, book, config, sleep, nobody_is_told)
    with progress.bar(f"{config.model} is asked", len(todo)) as bar:
        await sender.work(todo, lambda item: asking.ask_for(sender, item), bar)
    return not sender.budget_spent


def by_the_strongest(item: Item, replies: Sequence[Reply], task: TaskConfig, trust: Trust) -> Rationale | None:
    """The rationale of the strongest teacher that was asked and gave an allowed answer; None where none did."""
    asked = sorted((each for each in replies if each.sample <= STRONGER), key=lambda each: each.sample)
    drafts = ((reply, draft_of(reply, item, task)) for reply in asked)
    found = ((reply, draft) for reply, draft in drafts if draft is not None and draft.answer is not None)
    return next((rationale_of(item, reply, draft, trust) for reply, draft in found), None)


@dataclass
class _Escalating:
    """One call of `escalate`: what its requests share."""

    book: AskBook
    task: TaskConfig
    config: StrongerConfig
    round_id: int
    level: int
    demonstrations: Demonstrations

    async def ask_for(self, sender: Sender, item: Item) -> None:
        """Ask for one item's rationale."""
        request = request_for(item, self.task, self.config, self.demonstrations(item), 0)
        purpose = f"escalate/{self.round_id}/{item.key}/{self.level}"
        await sender.send(request, purpose, lambda received: self._keep(item, received), with_one_less)

    def _keep(self, item: Item, received: Received) -> None:
        """Settle, and store the reply in the same transaction; which one is kept is decided later."""
        reply = reply_row(self.round_id, received, read(received.completion, item, self.task))
        reply.sample = STRONGER - self.level
        self.book.keep(received.charge_id, received.micro_usd, prompt_of(received.request), reply, None)
