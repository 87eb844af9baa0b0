"""Looks at one thing without changing the campaign: a prompt, the student's answer, the reviews, a pilot."""

import hashlib

from connectors.endpoints import fitted
from connectors.wiring import Project
from loop.answer import number_steps, shown
from loop.errors import PreceptorError
from loop.interval import wilson
from loop.records import DecisionKind, Item, Split, Stage, VerdictKind
from loop.stages.parts import id_of, in_force, is_reply
from loop.store import decisions, items, rationales, reading, reviews, rounds
from loop.store.money import Purse
from loop.teacher.demonstrations import nearest
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
    decided = [
        (each, tuple(rationale.steps), rationale.parsed)
        for each, rationale, decision in decisions.decided(project.store, config.run.name)
        if decision.kind is DecisionKind.GOLD and rationale.parsed is not None
    ]
    request = request_for(item, config.task, config.teacher, nearest(item, decided, config.teacher.demonstrations), 0)
    with project.teacher() as teacher, project.judge() as judge:
        price = worst_case(request, teacher.price)
        judging = None if judge is None else worst_case(a_step_request(item, config.task, config.judge), judge.price)
    prompt = prompt_of(request)
    shown: dict[str, object] = {"prompt_hash": prompt.hash, "worst_case_usd": price / 1e6}
    if judging is not None:
        shown["judge_worst_case_usd_per_step"] = judging / 1e6
    return shown | {"request": prompt.body}


def answer_question(project: Project, question: str) -> str:
    """The answer of the student in force, with its rationale and its agreement with itself.

    Raises:
        PreceptorError: no student was trained yet.
    """
    config = project.config
    checkpoint = in_force(project.store, config.run.name)
    if checkpoint is None:
        raise PreceptorError("no student was trained yet; `preceptor run` trains one")
    student = project.trainer().student(project.folder / "checkpoints" / checkpoint.folder)
    text_hash = hashlib.sha256(question.encode()).hexdigest()
    item = Item(key=text_hash[:16], question=question, split=Split.POOL, text_hash=text_hash)
    query = config.query
    greedy, *sampled = student.explain(
        [item], copies=range(query.samples + 1), temperature=query.temperature, top_p=query.top_p, seed=config.run.seed
    )[0]
    if greedy.answer is None:
        return f"{number_steps(greedy.steps)}\n(no answer could be read)"
    agreeing = sum(each.answer == greedy.answer for each in sampled)
    return (
        f"{number_steps(greedy.steps)}\nAnswer: {shown(greedy.answer, item.choices)}\n"
        f"({agreeing} of {len(sampled)} sampled explanations agree)"
    )


def push_reviews(project: Project) -> str:
    """Put the round's open reviews on the board by hand."""
    current = rounds.current(project.store, project.config.run.name)
    if current is None or current.stage is not Stage.REVIEW:
        raise PreceptorError("no round is in review; `preceptor run` brings one there")
    pending = reviews.pending(project.store, id_of(current))
    project.desk().push(pending)
    return f"{len(pending)} reviews stand at {project.desk().address()}"


def review_state(project: Project) -> str:
    """How many reviews of the newest round are open and done."""
    current = rounds.current(project.store, project.config.run.name)
    if current is None:
        return "no round yet"
    total = len(reviews.tasks(project.store, id_of(current)))
    waiting = len(reviews.pending(project.store, id_of(current)))
    return f"round {current.number} ({current.stage}): {total - waiting} of {total} reviewed"


def forecast(project: Project) -> str:
    """What a pilot found, and what the budget reaches at that price."""
    store, run = project.store, project.config.run.name
    current = rounds.current(store, run)
    assert current is not None
    asked = [each for each in rationales.of_round(store, id_of(current)) if is_reply(each)]
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
