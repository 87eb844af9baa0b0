"""Runs a campaign: opens rounds, carries them on, waits for people, and says why it stopped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from connectors.endpoints import fitted
from connectors.wiring import Project
from loop import round as rounds_of
from loop.config import Config
from loop.errors import BoardDown, PoolEmpty
from loop.records import Currency, Round, Stage
from loop.store import claims, items, reviews, rounds, withdrawals
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.prompt import request_for, worst_case

LEASE_SECONDS = 3600.0
"""How long a run on another host is believed to be alive without a sign."""


class Outcome(IntEnum):
    """How `run` ends; the numbers are its exit codes."""

    FINISHED = 0
    WAITS = 3
    BUDGET = 4


@dataclass(frozen=True)
class Ended:
    """How a run ended, in a word and in a sentence."""

    outcome: Outcome
    text: str


def run(project: Project, *, rounds_wanted: int, wait: bool, pilot: int | None = None) -> Ended:
    """Run or resume the campaign until it is finished, waits for people, or its budget is spent.

    Raises:
        AlreadyWorking: another process holds the run.
    """
    store, config = project.store, project.config
    with claims.holding(store, config.run.name, "run", config.run.name, lease_seconds=LEASE_SECONDS):
        Purse(store, config.run.name).open(project.usd_limit, project.minutes_limit)
        _resume(project)
        said = ""
        with project.parts() as parts:
            while True:
                current = rounds.current(store, config.run.name)
                if current is None or current.stage is Stage.CLOSED:
                    ended = _before_next(current, project, parts.teacher.price, rounds_wanted)
                    if ended is not None:
                        return ended
                    current = _open(project, pilot)
                    pilot = None
                try:
                    current = rounds_of.advance(current, store, parts, project.config_of(current))
                    if current.stage is not Stage.REVIEW or _simulated(project):
                        continue
                    waits = f"round {current.number} waits for reviewers at {parts.reviewers.address()}"
                except BoardDown as error:
                    if not wait:
                        raise
                    waits = f"round {current.number} waits for the review server: {error}"
                if not wait:
                    return Ended(Outcome.WAITS, waits)
                if waits != said:
                    project.progress.say(f"  {waits}; goes on by itself")
                    said = waits
                _sleep(store, config.review.poll_seconds)


def _sleep(store: Store, seconds: float) -> None:
    """Wait until the next look at the board, or until another process has pulled something."""
    known, until = reviews.pulled(store), time.monotonic() + seconds
    while time.monotonic() < until and reviews.pulled(store) == known:
        time.sleep(min(1.0, seconds))


def _resume(project: Project) -> None:
    """Give a round that was cut off today's settings, and name those that changed."""
    current = rounds.current(project.store, project.config.run.name)
    if current is not None and current.stage is not Stage.CLOSED:
        _, changed = rounds_of.resume(project.store, current, fitted(project, project.progress.say))
        project.progress.say(f"── round {current.number} of run {current.run} goes on at {current.stage}")
        for line in changed:
            project.progress.say(f"   changed since the round was opened: {line}")


def _open(project: Project, pilot: int | None) -> Round:
    """Open the next round; a pilot is a random batch of which every rationale is reviewed."""
    config = fitted(project, project.progress.say)
    config = config if pilot is None else _pilot(config, pilot)
    opened, changed = rounds_of.open_next(project.store, config)
    project.progress.say(f"── round {opened.number} of run {opened.run}")
    for line in changed:
        project.progress.say(f"   changed since the last round: {line}")
    return opened


def _pilot(config: Config, size: int) -> Config:
    query = config.query.model_copy(update={"acquisition": "random", "batch_size": size})
    review = config.review.model_copy(update={"audit_share": 1.0, "certify_share": 0.0})
    return config.model_copy(update={"query": query, "review": review})


def _before_next(
    current: Round | None, project: Project, price: Callable[..., int], rounds_wanted: int
) -> Ended | None:
    """Why no further round is opened, if so."""
    store, config = project.store, project.config
    if current is not None and current.number >= rounds_wanted:
        return Ended(Outcome.FINISHED, f"finished: {current.number} rounds closed")
    pool = items.eligible(store, config.run.name, config)
    if not pool and withdrawals.awaiting(store, config.run.name):
        return None
    if not pool:
        if current is None:
            raise PoolEmpty("the pool is empty; `preceptor ingest FILE` fills it")
        domains = "; some domains' own budgets are spent (budget.domains)" if config.budget.domains else ""
        return Ended(Outcome.FINISHED, f"finished: no pool item is left to ask{domains}")
    balance = Purse(store, config.run.name).balances()[Currency.USD]
    left = balance.limit - balance.spent - balance.reserved
    needed = worst_case(request_for(pool[0], config.task, config.teacher, (), 0), price)
    if needed > left or balance.limit == 0:
        return Ended(
            Outcome.BUDGET,
            f"budget spent: ${left / 1e6:.6f} of ${balance.limit / 1e6:.2f} left, one request may cost "
            f"${needed / 1e6:.6f}; raise budget.usd to go on",
        )
    return None


def _simulated(project: Project) -> bool:
    """Let the simulated reviewer work; False where there is none, so that people are needed."""
    reviewer = project.simulated_reviewer()
    if reviewer is None:
        return False
    project.progress.say(f"  simulated reviewer: {reviewer.work()} rationales reviewed")
    return True
