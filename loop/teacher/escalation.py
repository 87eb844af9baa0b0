"""A cascade of teachers: a doubtful rationale goes on to a stronger one where that is worth its price.

As in FrugalGPT (Chen and others, 2023): the cheap teacher answers everything, and what it answers is scored; a dearer
one is asked only where the score is bad. The gain of asking is the chance that its rationale is right less the chance
that the present one is, times what a wrong rationale costs: a person's minutes.
"""

from collections.abc import Sequence

from loop.config import BudgetConfig, TaskConfig
from loop.records import STRONGER, Item, Rationale, Reply
from loop.teacher.ask import Demonstrations, draft_of, rationale_of
from loop.teacher.confidence import Trust, Verdicted
from loop.teacher.further import Further

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


def escalated(level: int, model: str, round_id: int, demonstrations: Demonstrations) -> Further:
    """What the stronger teacher of this level, counted from 0, is asked."""
    return Further(
        STRONGER - level,
        lambda key: f"escalate/{round_id}/{key}/{level}",
        f"{model} is asked",
        round_id,
        demonstrations,
    )


def by_the_strongest(item: Item, replies: Sequence[Reply], task: TaskConfig, trust: Trust) -> Rationale | None:
    """The rationale of the strongest teacher that was asked and gave an allowed answer; None where none did."""
    asked = sorted((each for each in replies if each.sample <= STRONGER), key=lambda each: each.sample)
    drafts = ((reply, draft_of(reply, item, task)) for reply in asked)
    found = ((reply, draft) for reply, draft in drafts if draft is not None and draft.answer is not None)
    return next((rationale_of(item, reply, draft, trust) for reply, draft in found), None)
