"""Looks at one thing without changing the campaign: a prompt, what a pilot found."""

from connectors.endpoints import fitted
from connectors.wiring import Project
from loop.errors import PreceptorError
from loop.interval import wilson
from loop.records import Split, VerdictKind
from loop.stages.demonstrating import Demonstrating
from loop.stages.parts import id_of
from loop.store import items, rationales, reading, reviews, rounds
from loop.store.money import Purse
from loop.teacher.demonstrations import as_shown
from loop.teacher.judge_prompt import a_step_request
from loop.teacher.prompt import prompt_of, request_for, worst_case


def show_prompt(project: Project, key: str) -> dict[str, object]:
    """The exact request for one item and its worst-case price in dollars; nothing is sent.

    Raises:
        PreceptorError: there is no such pool item.
    """
    item = items.get(project.store, key)
    if item is None or item.split is not Split.POOL:
        raise PreceptorError(f"{key}: not a pool item; only pool items are shown to a teacher")
    config = fitted(project)
    demonstrating = Demonstrating(project.store, config.run.name, lambda: project.trainer().student(None), config)
    worked = demonstrating.shown(item)
    request = request_for(item, config.task, config.teacher, as_shown(worked), 0)
    with project.teacher() as teacher, project.judge() as judge:
        price = worst_case(request, teacher.price)
        judging = None if judge is None else worst_case(a_step_request(item, config.task, config.judge), judge.price)
    prompt = prompt_of(request)
    shown: dict[str, object] = {"prompt_hash": prompt.hash, "worst_case_usd": price / 1e6}
    if judging is not None:
        shown["judge_worst_case_usd_per_step"] = judging / 1e6
    shown["demonstrations"] = {
        "shown": [each.item.key for each in worked],
        "when_asked_again": [each.item.key for each in demonstrating.more(item)],
        "new_set_to_be_tried_first": demonstrating.to_be_tried,
    }
    if config.teacher.redact.on:
        shown["stays_here"] = dict(request.hidden)
    return shown | {"request": prompt.body}


def forecast(project: Project) -> str:
    """What a pilot found, and what the budget reaches at that price."""
    store, run = project.store, project.config.run.name
    current = rounds.current(store, run)
    assert current is not None
    asked = [each for each in rationales.of_round(store, id_of(current)) if each.is_reply]
    ids = [each.id for each in asked if each.id is not None]
    verdicts = [each for rows in reviews.verdicts(store, ids).values() for each in rows if each.kind is not None]
    right = sum(each.kind is VerdictKind.ACCEPT for each in verdicts)
    flagged = sum(bool(rows) for rows in rationales.flags(store, ids).values())
    seconds = sum(each.seconds for each in verdicts) / len(verdicts) if verdicts else 0.0
    usd = next(each for key, each in Purse(store, run).balances().items() if key == "usd")
    each_costs = sum(reading.spent_by_query(store, run).values()) / 1e6 / max(1, len(asked))
    low, high = wilson(right, len(verdicts)) if verdicts else (0.0, 1.0)
    reach = int((usd.limit - usd.spent) / 1e6 / each_costs) if each_costs else 0
    simulated = " (simulated reviewer)" if any(each.simulated for each in verdicts) else ""
    return (
        f"pilot of {len(asked)} random items:\n"
        f"  rationales accepted as they were: {right} of {len(verdicts)} reviewed{simulated}"
        f" (95 % interval {low:.2f} to {high:.2f})\n"
        f"  flagged: {flagged} of {len(asked)}\n"
        f"  a review took {seconds:.0f} s on average\n"
        f"  a reply cost ${each_costs:.6f}; what is left of budget.usd reaches about {reach} more\n"
        f"  budget.minutes reaches about {int(project.config.budget.minutes * 60 / seconds) if seconds else 0} reviews"
    )
