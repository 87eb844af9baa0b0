"""Runs a campaign: opens rounds, carries them on, waits for people, and says why it stopped."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from connectors import notify, spans, tracking
from connectors.endpoints import fitted
from connectors.prices import further_request
from connectors.stops import HARD, grounds
from connectors.wiring import Project
from loop import round as rounds_of
from loop.config import Config
from loop.errors import BoardDown, PoolEmpty, TeacherDown
from loop.events import about, happened
from loop.ledger import caps
from loop.records import Item, Round, Stage
from loop.stages.demonstrating import Demonstrating
from loop.stages.parts import Parts, id_of
from loop.stopping import Ground, State
from loop.store import pool, reviews, rounds, withdrawals
from loop.store.database import Store
from loop.store.money import Purse

LEASE_SECONDS = 3600.0
"""How long a run on another host is believed to be alive without a sign."""
LONGEST_PAUSE = 600.0
"""Seconds between two tries at a server that is down, at most; they double from `review.poll_seconds`."""


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


@dataclass(frozen=True)
class Waits:
    """What a round waits for; `down` is true where that is a server which does not answer."""

    text: str
    down: bool = False


def run(
    project: Project, *, rounds_wanted: int, wait: bool, pilot: int | None = None, to_the_end: bool = False
) -> Ended:
    """Run or resume the campaign until it is finished, waits for people, or its budget is spent.

    It also ends where a further round is not worth it, unless all rounds are wanted `to_the_end`.

    Raises:
        AlreadyWorking: another process holds the run.
    """
    store, config = project.store, project.config
    tracking.check(config.tracking)
    with (
        project.held(seconds=LEASE_SECONDS),
        spans.exported(config.tracking.spans),
    ):
        Purse(store, config.run.name).open(project.usd_limit, project.minutes_limit)
        _resume(project)
        said, pause = "", config.review.poll_seconds
        with project.parts() as parts:
            while True:
                current = rounds.current(store, config.run.name)
                if current is None or current.stage is Stage.CLOSED:
                    if current is not None:  # it may have closed in a process that was killed before it tidied up
                        rounds_of.advance(current, store, parts, config)
                    tracking.catch_up(store, config.run.name, config.tracking, project.folder, project.progress)
                    ended = _before_next(current, project, parts, rounds_wanted, to_the_end)
                    if ended is not None:
                        return ended
                    current = _open(project, pilot)
                    pilot = None
                waits = _carry_on(current, project, parts, wait=wait)
                if waits is None:
                    pause = config.review.poll_seconds
                    continue
                if not wait:
                    return Ended(Outcome.WAITS, waits.text)
                if waits.text != said:
                    project.progress.say(f"  {waits.text}; goes on by itself")
                    said = waits.text
                _sleep(store, pause)
                pause = min(LONGEST_PAUSE, 2 * pause) if waits.down else config.review.poll_seconds


def _carry_on(current: Round, project: Project, parts: Parts, *, wait: bool) -> Waits | None:
    """Carry the round on as far as it goes; what it waits for, if anything.

    Raises:
        BoardDown, TeacherDown: nobody waits, or asking the teacher again and again would cost.
    """
    try:
        with about(run=current.run, round=current.number):
            current = rounds_of.advance(current, project.store, parts, project.config_of(current))
            notify.if_money_is_low(project, current)
            if current.stage is not Stage.REVIEW or _simulated(project):
                return None
            address = parts.reviewers.address()
            notify.if_reviews_wait(project, current, address)
            return Waits(f"round {current.number} waits for reviewers at {address}")
    except BoardDown as error:
        if not wait:
            raise
        return Waits(f"round {current.number} waits for the review server: {error}", down=True)
    except TeacherDown as error:
        if not wait or not error.free:
            raise
        return Waits(f"round {current.number} waits for the teacher: {error}", down=True)


def _sleep(store: Store, seconds: float) -> None:
    """Wait until the next look at the board, or until another process has pulled something."""
    known, until = reviews.pulled(store), time.monotonic() + seconds
    while time.monotonic() < until and reviews.pulled(store) == known:
        time.sleep(min(1.0, seconds))


def _resume(project: Project) -> None:
    """Give a round that was cut off today's settings, and name those that changed."""
    current = rounds.current(project.store, project.config.run.name)
    if current is not None and current.stage is not Stage.CLOSED:
        _cap(project, current)
        _, changed = rounds_of.resume(project.store, current, fitted(project, project.progress.say))
        project.progress.say(f"── round {current.number} of run {current.run} goes on at {current.stage}")
        with about(run=current.run, round=current.number):
            happened("stage_entered", stage=current.stage.value)
        for line in changed:
            project.progress.say(f"   changed since the round was opened: {line}")


def _cap(project: Project, current: Round) -> None:
    """Hold the round, and the domains, to today's limits, in whichever stage it is."""
    Purse(project.store, current.run).cap(caps(project.config.budget, id_of(current)))


def _open(project: Project, pilot: int | None) -> Round:
    """Open the next round; a pilot is a random batch of which every rationale is reviewed."""
    config = fitted(project, project.progress.say)
    config = config if pilot is None else _pilot(config, pilot)
    opened, changed = rounds_of.open_next(project.store, config)
    _cap(project, opened)
    project.progress.say(f"── round {opened.number} of run {opened.run}")
    for line in changed:
        project.progress.say(f"   changed since the last round: {line}")
    return opened


def _pilot(config: Config, size: int) -> Config:
    query = config.query.model_copy(update={"acquisition": "random", "batch_size": size})
    review = config.review.model_copy(update={"audit_share": 1.0, "certify_share": 0.0})
    return config.model_copy(update={"query": query, "review": review})


def _before_next(
    current: Round | None, project: Project, parts: Parts, rounds_wanted: int, to_the_end: bool
) -> Ended | None:
    """Why no further round is opened, if so."""
    store, config = project.store, project.config
    if current is not None and current.number >= rounds_wanted:
        return Ended(Outcome.FINISHED, f"finished: {current.number} rounds closed")
    left = pool.count(store, config.run.name, config)
    if not left and withdrawals.awaiting(store, config.run.name):
        return None
    if not left and current is None:
        raise PoolEmpty(
            "no pool item may be asked; `preceptor ingest FILE` takes some in, `preceptor doctor` says more"
        )
    first = pool.first(store, config.run.name, config)
    request = 0 if first is None else _further_request(first, project, parts)
    stop = _stop(grounds(store, config.run.name, config, left, request=request), current, to_the_end, project)
    if stop is None:
        return None
    outcome = Outcome.BUDGET if stop.name == "money" else Outcome.FINISHED
    said = "budget spent" if stop.name == "money" else "finished"
    return Ended(outcome, f"{said}: {stop.text}")


def _further_request(item: Item, project: Project, parts: Parts) -> int:
    """What would be held for asking about an item in the next round, in micro-dollars."""
    store, config = project.store, fitted(project)
    demonstrating = Demonstrating(store, config.run.name, lambda: parts.trainer.student(None), config)
    return further_request(store, config, item, demonstrating, parts.teacher.price)


def _stop(found: Sequence[Ground], current: Round | None, to_the_end: bool, project: Project) -> Ground | None:
    """The first ground that ends the run; those that it goes on in spite of are told. Nothing is settled before the
    first round but whether anything can be asked.
    """
    stops = sorted((each for each in found if each.state is State.STOP), key=lambda each: each.name != "pool")
    hard = [each for each in stops if each.name in HARD]
    if hard or current is None:
        return hard[0] if hard else None
    if to_the_end:
        for each in stops:
            project.progress.say(f"  {each.name}: {each.text}; goes on, as --rounds says")
        return None
    return stops[0] if stops else None


def _simulated(project: Project) -> bool:
    """Let the simulated reviewer work; False where there is none, so that people are needed."""
    reviewer = project.simulated_reviewer()
    if reviewer is None:
        return False
    project.progress.say(f"  simulated reviewer: {reviewer.work()} rationales reviewed")
    return True
