"""Campaigns simulated round by round from unit costs: hours by part, waiting for people in between, and money.

The parts come one after the other, as `loop.round` has them. Workers share the sieve, the explanations and the checks
(`docs/cluster.md`); all else is one process. People work so many hours a day, and a round waits for them: `review` is
what they take at that pace, `night` what a round waits beyond it because nobody is at work. What they have not looked
at when a round closes at its deadline stays undecided. Not simulated: a second ask of what was left
undecided, demonstrations that are tried out, judge, stronger teachers, continuations, planted rationales, seed items,
and what ACCEPT takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.unit_costs import Floats, Unit
from loop.config import Config

CONFIG = Config()
HOUR, DAY = 3600.0, 24.0
STAGES = {
    "ingest": ("ingest",),
    "SELECT": ("draw", "sieve", "explain", "embed"),
    "ASK": ("ask",),
    "CHECK": ("learn", "check"),
    "REVIEW": ("push", "review", "night", "pull"),
    "TRAIN": ("train",),
    "EVALUATE": ("shadows", "evaluate"),
    "export": ("export",),
}
PARTS = tuple(part for parts in STAGES.values() for part in parts)
SHARED = frozenset({"sieve", "explain", "check"})
"""What the workers of a cluster do side by side."""
ON_DEVICE = SHARED | {"embed", "train", "shadows", "evaluate"}
"""What takes less time on a faster device."""


def _yours(default: Any, said: str) -> Any:
    return field(default=default, metadata={"kind": "yours", "said": said})


def _assumed(default: Any, said: str) -> Any:
    return field(default=default, metadata={"kind": "assumed", "said": said})


def _default(default: Any, said: str) -> Any:
    return field(default=default, metadata={"kind": "config", "said": said})


@dataclass(frozen=True)
class Plan:
    """How a campaign is run: what its owner chooses, what the config says by default, and what is assumed."""

    student: str = _yours("smollm2", "smollm2 or minilm")
    asked_share: float = _yours(0.01, "share of the pool that is asked in all")
    rounds: int = _yours(10, "rounds; the batch is what is asked, shared among them")
    sieve: int = _yours(20, "query.sieve; 1: none")
    workers: int = _yours(1, "[cluster] workers; 1: in the process of the run")
    speed: float = _yours(
        1.0, "how many times as fast as the measured core the student's device is; no GPU is measured"
    )
    start: str = _yours("fresh", "student.start: fresh or warm")
    holdout: int = _yours(1000, "holdout items")
    hours_a_day: float = _yours(6.0, "hours that each reviewer reviews a day, each day")
    requests_per_minute: float = _yours(500.0, "the endpoint's limit")
    tokens_per_minute: float = _yours(0.0, "the endpoint's limit, counted as teacher.tokens_per_minute is; 0: none")
    input_price: float = _yours(0.15, "US dollars per million tokens sent")
    output_price: float = _yours(0.6, "US dollars per million tokens got")
    hour_price: float = _yours(30.0, "US dollars for an hour of review")
    core_price: float = _yours(0.05, "US dollars for an hour of a core")
    candidates: int = _default(CONFIG.query.candidates, "query.candidates")
    epochs: float = _default(CONFIG.student.epochs, "student.epochs")
    replay_share: float = _default(CONFIG.student.replay_share, "student.replay_share")
    random_share: float = _default(CONFIG.query.random_share, "query.random_share")
    diversity: int = _default(CONFIG.query.diversity, "query.diversity; 1: nothing is embedded")
    audit_share: float = _default(CONFIG.review.audit_share, "review.audit_share")
    certify_share: float = _default(CONFIG.review.certify_share, "review.certify_share; such audits are reviewed twice")
    second_share: float = _default(CONFIG.review.second_share, "review.second_share")
    quorum: float = _default(CONFIG.review.quorum, "review.quorum")
    deadline_hours: float = _default(
        CONFIG.review.deadline_hours, "review.deadline_hours; with `inf` rounds wait for all"
    )
    saving_pairs: int = _default(CONFIG.evaluation.saving_pairs, "evaluation.saving_pairs")
    closer_items: int = _default(CONFIG.evaluation.closer_items, "evaluation.closer_items")
    concurrency: int = _default(CONFIG.teacher.concurrency, "teacher.concurrency")
    review_seconds: float = _default(
        60 * CONFIG.review.minutes_per_review, "seconds a review; review.minutes_per_review"
    )
    review_spread: float = _assumed(1.0, "standard deviation of a review's seconds, as a share of their mean")
    latency: float = _assumed(2.0, "seconds until the teacher has replied")
    flagged_share: float = _assumed(0.3, "share of the rationales at review.risk_threshold or above")
    disagreements: float = _assumed(0.1, "share of what two people reviewed that a third one decides")
    accepted_share: float = _assumed(0.9, "share of the decided items that the student learns")


class Campaign:
    """One campaign in `runs` repetitions side by side; every amount is an array of them, (runs,).

    `hours` are by the clock, `core_hours` of processors, `units` how many of each part's units were done.
    """

    def __init__(
        self, plan: Plan, costs: Mapping[str, Unit], pool: int, reviewers: int, *, runs: int = 1, seed: int = 0
    ) -> None:
        self._plan, self._pool, self._reviewers = plan, pool, reviewers
        self._chance = np.random.default_rng(seed)
        self.costs = {name: unit.drawn(self._chance, runs) for name, unit in costs.items()}
        zero: Floats = np.zeros(runs)
        self.hours, self.core_hours, self.units = ({part: zero.copy() for part in PARTS} for _ in range(3))
        self.batch = max(1, round(plan.asked_share * pool / plan.rounds))
        self.decided, self.reviewed, self.undecided, self.people_hours, self.teacher_usd, self._clock = (
            zero.copy() for _ in range(6)
        )
        self._take("ingest", pool)
        for number in range(1, plan.rounds + 1):
            self._select(number)
            self._ask()
            self._check()
            self._learn(number, self._review())
        self._take("export", self.decided)

    @property
    def days(self) -> Floats:
        """From the first item taken in to the last one exported."""
        days: Floats = self._clock / DAY
        return days

    @property
    def usd(self) -> dict[str, Floats]:
        """What teacher, people and processors cost."""
        cores = np.sum(list(self.core_hours.values()), axis=0)
        return {
            "teacher": self.teacher_usd,
            "people": self.people_hours * self._plan.hour_price,
            "processors": cores * self._plan.core_price,
        }

    def _take(
        self, part: str, units: float | Floats, *, cost: str | None = None, seconds: Floats | None = None
    ) -> None:
        """So many units of a part, at their unit cost or in so many seconds of one core."""
        spent = units * self.costs[cost or part] if seconds is None else seconds
        if part in ON_DEVICE:
            spent = spent / self._plan.speed
        workers, speedup = (self._plan.workers, self._speedup()) if part in SHARED else (1, 1.0)
        hours = spent / HOUR / speedup
        self.units[part] += units
        self.core_hours[part] += hours * workers
        self._wait(part, hours)

    def _wait(self, part: str, hours: float | Floats) -> None:
        self.hours[part] += hours
        self._clock = self._clock + hours

    def _speedup(self) -> Floats | float:
        """Of all workers together, beside the process of the run; more than two are as good as two, each."""
        workers = self._plan.workers
        return 1.0 if workers == 1 else workers * self.costs["two_workers"] / 2 / (1 + self.costs["overhead"])

    def _select(self, number: int) -> None:
        """The first batch is random, as nothing is trained."""
        plan = self._plan
        self._take("draw", self._pool)
        if number > 1:
            looked = min(self._pool, plan.candidates * self.batch)
            self._take("sieve", min(self._pool, plan.sieve * looked) if plan.sieve > 1 else 0)
            self._take("explain", looked)
            self._take("embed", looked + self.decided if plan.diversity > 1 else 0)

    def _ask(self) -> None:
        """As fast as both limits, the requests under way and the ledger allow."""
        plan, costs, count = self._plan, self.costs, self.batch
        tokens = costs["prompt"] + CONFIG.teacher.max_completion_tokens
        most = plan.tokens_per_minute / tokens if plan.tokens_per_minute else np.inf
        minute = np.minimum(plan.requests_per_minute, most) * costs["rate_share"]
        limits = [count * 60 / minute, 0 * minute + count * plan.latency / plan.concurrency, count * costs["book"]]
        self.units["ask"] += count
        self.core_hours["ask"] += count * costs["book"] / HOUR
        self._wait("ask", np.max(limits, axis=0) / HOUR)
        price = (costs["prompt"] * plan.input_price + costs["reply"] * plan.output_price) / 1e6
        self.teacher_usd += count * price

    def _check(self) -> None:
        self._take("learn", self.reviewed)
        self._take("check", self.batch)

    def _review(self) -> Floats:
        """How many items of the batch are decided when the round closes."""
        plan, chance = self._plan, self._chance
        runs = len(self._clock)
        audits = chance.binomial(self.batch, plan.audit_share, runs)
        items = audits + chance.binomial(self.batch - audits, plan.flagged_share)
        twice = chance.binomial(audits, plan.certify_share) + chance.binomial(items, plan.second_share)
        reviews = np.asarray(items + twice + chance.binomial(twice, plan.disagreements), dtype=np.float64)
        lasting = chance.normal(reviews, plan.review_spread * np.sqrt(reviews))
        work: Floats = np.maximum(lasting, 0.0) * plan.review_seconds / HOUR
        self._take("push", reviews)
        opened = self._clock
        busy = work * plan.quorum / np.maximum(1, np.minimum(self._reviewers, reviews))
        closed = np.minimum(finished(opened, busy, plan.hours_a_day), opened + plan.deadline_hours)
        did = worked(closed, plan.hours_a_day) - worked(opened, plan.hours_a_day)
        done = plan.quorum * np.minimum(1.0, np.divide(did, busy, out=np.ones(runs), where=busy > 0))
        self.units["review"] += reviews * done
        self.people_hours += work * done
        at_their_pace = np.minimum(closed - opened, did * DAY / plan.hours_a_day)
        self._wait("review", at_their_pace)
        self._wait("night", closed - opened - at_their_pace)
        self._take("pull", reviews * done)
        self.reviewed = self.reviewed + items * done
        left = items * (1 - done)
        self.undecided = self.undecided + left
        decided: Floats = self.batch - left
        return decided

    def _learn(self, number: int, decided: Floats) -> None:
        """Train on all that is decided, train students to see what selection saves, and answer the holdout."""
        plan = self._plan
        new, old = plan.accepted_share * decided, self.decided
        self.decided = old + new
        warm = plan.start == "warm" and number > 1
        self._take("train", plan.epochs * (new + (plan.replay_share if warm else 1.0) * old))
        shadows = 0.0
        if plan.saving_pairs and number > 1:
            share = self.decided / number
            control = share * (1 + plan.random_share * (number - 1))
            selected = share * (1 - plan.random_share) * (number - 1)
            shadows = plan.saving_pairs
            self._take("shadows", 2 * plan.epochs * np.minimum(control, selected), cost="train")
        dev = CONFIG.pool.dev_share * plan.holdout
        answered = plan.holdout + 2 * shadows * dev
        closer = 2 * min(plan.closer_items, dev) if plan.student == "smollm2" else 0
        seconds = answered * self.costs["predict"] + closer * self.costs["explain"]
        self._take("evaluate", answered, seconds=seconds)


def worked(clock: Floats, hours_a_day: float) -> Floats:
    """Hours that somebody has worked by then, who begins each day when it begins."""
    hours: Floats = np.floor(clock / DAY) * hours_a_day + np.minimum(clock % DAY, hours_a_day)
    return hours


def finished(clock: Floats, hours: Floats, hours_a_day: float) -> Floats:
    """When somebody is done who begins now with so many hours of work."""
    total = worked(clock, hours_a_day) + hours
    days = np.maximum(np.ceil(total / hours_a_day - 1e-9) - 1, 0)
    done: Floats = np.maximum(clock, np.where(hours > 0, days * DAY + total - days * hours_a_day, clock))
    return done
