"""Within ASK: the teacher checks the student's own explanations and puts them right, where the config says so."""

import asyncio
from collections.abc import Mapping, Sequence

from loop.answer import Answer
from loop.config import Config
from loop.ports import Explanation, Student
from loop.records import Item, Round
from loop.stages.parts import Parts, id_of, seed_of, student_in_force
from loop.store import revisions, rounds
from loop.store.database import Store
from loop.teacher.revision import Todo, Way, expected_costs, revise, steps_of

PRIOR_WRONG, PRIOR_STEPS = 1, 4
"""Before any revision one step in four is taken to be wrong after right ones; this counts as so many steps."""


def revise_explanations(current: Round, store: Store, parts: Parts, config: Config) -> bool:
    """Revise what a trained student explains; whether the budget is spent. What is left is explained anew."""
    student = None if config.teacher.revise == "never" else student_in_force(current, store, parts)
    items = [] if student is None else revisions.unrevised(store, id_of(current))
    if student is None or not items:
        return False
    explained = _explained(current, store, student, items, config)
    todo = _todo(current, store, explained, parts, config)
    outcome = asyncio.run(
        revise(
            todo,
            parts.teacher,
            revisions.RunRevisionBook(store, current.run, id_of(current), config.teacher),
            config.task,
            config.teacher,
            round_id=id_of(current),
            stored=revisions.replies(store, id_of(current)),
            go_on=lambda item, steps: student.go_on([item], [steps])[0],
            progress=parts.progress,
        )
    )
    parts.progress.say(
        f"  {outcome.revised} explanations of the student are revised; {len(items) - outcome.revised} items are "
        f"explained anew ({len(items) - len(todo)} for want of steps, {outcome.gave_up} because a reply cannot be used)"
    )
    return outcome.budget_spent


def _explained(
    current: Round, store: Store, student: Student, items: Sequence[Item], config: Config
) -> list[tuple[Item, Explanation]]:
    """What the student says of each item greedily: as it was scored, or anew where it was not."""
    scored = {score.item_key: score.parts for score in rounds.scores(store, id_of(current))}
    known = {key: each for key, parts in scored.items() if (each := _of_score(parts)) is not None}
    missing = [item for item in items if item.key not in known]
    query, seed = config.query, seed_of(config, current.number)
    told = student.explain(missing, copies=[0], temperature=query.temperature, top_p=query.top_p, seed=seed)
    known |= {item.key: each for item, [each] in zip(missing, told, strict=True)}
    return [(item, known[item.key]) for item in items]


def _of_score(parts: Mapping[str, object]) -> Explanation | None:
    steps, answer = parts.get("steps"), parts.get("answer")
    if not isinstance(steps, list):
        return None
    return Explanation(tuple(steps), Answer.from_canonical(answer) if isinstance(answer, str) else None)


def _todo(
    current: Round, store: Store, explained: Sequence[tuple[Item, Explanation]], parts: Parts, config: Config
) -> list[Todo]:
    """Those with steps, and room for one more, each with the way that the config names or that should cost least."""
    wrong = _wrong_share(current, store)
    found = []
    for item, explanation in explained:
        steps = steps_of(item, explanation)
        if 0 < len(steps) < config.task.max_steps:
            costs = expected_costs(item, steps, config.task, config.teacher, parts.teacher.price, wrong=wrong)
            named = config.teacher.revise
            way = min(costs, key=lambda each: costs[each]) if named == "auto" else Way(named)
            found.append(Todo(item, explanation, way, costs))
    return found


def _wrong_share(current: Round, store: Store) -> float:
    """How often a step was wrong after right ones, in the revisions of earlier rounds."""
    past = [row for number, row in revisions.of_run(store, current.run) if number < current.number and not row.problem]
    wrong = sum(row.first_wrong is not None for row in past)
    seen = sum(row.steps if row.first_wrong is None else row.first_wrong + 1 for row in past)
    return (PRIOR_WRONG + wrong) / (PRIOR_STEPS + seen)
