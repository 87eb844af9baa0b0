"""Within REVIEW: the teacher goes on from steps that reviewers put right, and what it writes is checked."""

import asyncio
from collections import Counter

from loop import acceptance
from loop.config import Config
from loop.errors import TeacherDown
from loop.records import Rationale, Round
from loop.stages.checking import Checking
from loop.stages.looking import learned, looking
from loop.stages.parts import Parts, id_of
from loop.store import continuations, items, rationales, reviews
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.continuation import go_on

UNREACHABLE = "it cannot be reached"


def continued(current: Round, store: Store, parts: Parts, config: Config) -> list[Rationale]:
    """What goes back to reviewers: what the teacher went on to, checked, and prefixes from which it did not go on.

    What is missing of it is derived from the store and done, so that it may be cut off anywhere and called again.
    """
    _keep_prefixes(current, store, config)
    _ask(current, store, parts, config)
    _check(current, store, parts, config)
    rows = rationales.of_round(store, id_of(current))
    checked = rationales.risks(store, [each.id or 0 for each in rows])
    grown = [each for each in rows if each.supersedes is not None and each.id in checked]
    return [*grown, *continuations.handed_back(store, rows)]


def _keep_prefixes(current: Round, store: Store, config: Config) -> None:
    """Store the steps that reviewers put right, once no other review of the same rationale is under way.

    After `review.max_continuations` they go back at once; what is continued even then comes to rest.
    """
    rows = rationales.of_round(store, id_of(current))
    verdicts = reviews.verdicts(store, [each.id or 0 for each in rows])
    waiting = {task.rationale_id for task, _, _ in reviews.pending(store, id_of(current))}
    past = Counter(each.item_key for each in rows if each.is_prefix)
    settled = waiting | {each.supersedes for each in rows if each.is_prefix}
    for each in rows:
        said = acceptance.continued(acceptance.counting(verdicts.get(each.id or 0, ()), config.review))
        if said is None or each.id in settled or past[each.item_key] > config.review.max_continuations:
            continue
        steps = acceptance.prefix_of(each, said)
        problem = _problem(len(steps), past[each.item_key], config)
        continuations.keep_prefix(store, each, steps or said.steps, problem)


def _problem(steps: int, past: int, config: Config) -> str | None:
    """Why the teacher is not asked to go on, if so."""
    if not steps:
        return "no corrected step stands before the end; correct the first wrong step"
    if steps >= config.task.max_steps:
        return f"there are {steps} steps already, and {config.task.max_steps} are the most"
    if past >= config.review.max_continuations:
        return f"{past} times are the most (review.max_continuations); correct the rest, or reject"
    return None


def _ask(current: Round, store: Store, parts: Parts, config: Config) -> None:
    """Ask the teacher to go on where it was not asked yet; what cannot be had goes back to the reviewer."""
    rows = rationales.of_round(store, id_of(current))
    missing, unreadable = continuations.open_prefixes(store, rows)
    for prefix, problem in unreadable:
        continuations.hand_back(store, prefix, problem)
    if not missing:
        return
    Purse(store, current.run).close_dead_holds()
    known = items.existing(store, [each.item_key for each in missing])
    book = continuations.ContinueBook(
        store, current.run, id_of(current), {each.item_key: each for each in missing}, config.teacher
    )
    todo = [(each, known[each.item_key]) for each in missing]
    try:
        asyncio.run(
            go_on(
                todo, parts.teacher, book, config.task, config.teacher, round_id=id_of(current), progress=parts.progress
            )
        )
    except TeacherDown as down:
        parts.progress.say(f"  {down}; reviewers get their corrected steps back")
        for prefix in continuations.open_prefixes(store, rationales.of_round(store, id_of(current)))[0]:
            continuations.hand_back(store, prefix, UNREACHABLE)


def _check(current: Round, store: Store, parts: Parts, config: Config) -> None:
    """Check what the teacher wrote, as everything else of the round was checked."""
    new = rationales.unchecked(store, id_of(current))
    if new:
        looked_at, checking = looking(current, store, parts, config), Checking(current, store, parts, config)
        checking(new, looked_at, learned(current, store, looked_at, config))
        checking.say()
