"""The demo's world on disk: items, the recordings of a simulated teacher that errs in known ways, and the truth."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from connectors import atomic
from connectors.demo.problems import CAMPAIGN, LARGEST, OPERATORS, Problem, Step, problems, told

MODEL = "demo-teacher"
POOL = 400
HOLDOUT = 300
ERROR_SHARE = 0.25
"""How often the simulated teacher is wrong."""

Reply = tuple[list[str], str, list[str]]
"""Steps, answer, and those of the steps that are wrong."""


def write_world(folder: Path, *, seed: int = 0, shuffled: bool = False) -> None:
    """Write pool, holdout, recorded replies and truth; `shuffled` gives each item another item's reply."""
    holdout = _distinct(f"holdout/{seed}", HOLDOUT, known=set())
    pool = _distinct(f"pool/{seed}", POOL, known={problem.question for problem in holdout})
    chance = random.Random(f"teacher/{seed}")
    replies = [_reply(problem, chance) for problem in pool]
    if shuffled:
        chance.shuffle(replies)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "holdout.jsonl", [{**_row("h", n, each), "answer": each.answer} for n, each in enumerate(holdout)])
    _write(folder / "pool.jsonl", [_row("p", number, each) for number, each in enumerate(pool)])
    _write(
        folder / "recorded.jsonl",
        [
            {"key": f"p{number:04}", "question": each.question, "model": MODEL, **said}
            for number, (each, reply) in enumerate(zip(pool, replies, strict=True))
            for said in _recorded(each, reply, random.Random(f"{seed}/{number}"))
        ],
    )
    _write(
        folder / "truth.jsonl",
        [
            {"key": f"p{number:04}", "answer": str(each.answer), "steps": each.steps, "wrong": wrong}
            for number, (each, (_, _, wrong)) in enumerate(zip(pool, replies, strict=True))
        ],
    )


def _distinct(seed: str, count: int, known: set[str]) -> list[Problem]:
    found: dict[str, Problem] = {}
    for problem in problems(CAMPAIGN, seed):
        if problem.question not in known:
            found[problem.question] = problem
        if len(found) == count:
            break
    return list(found.values())


def _row(prefix: str, number: int, problem: Problem) -> dict[str, object]:
    return {"key": f"{prefix}{number:04}", "question": problem.question, "domain": problem.kind.domain}


def _reply(problem: Problem, chance: random.Random) -> Reply:
    """A right reply, or one that is wrong in a way drawn at random."""
    if chance.random() >= ERROR_SHARE:
        return problem.steps, str(problem.answer), []
    errors = list(ERRORS)
    chance.shuffle(errors)
    return next(reply for error in errors if (reply := ERRORS[error](problem, chance)) is not None)


def _recorded(problem: Problem, reply: Reply, chance: random.Random) -> Iterator[dict[str, object]]:
    """The teacher's reply, and what it says behind each right step, where it slips as often as it errs at first."""
    yield {"steps": reply[0], "answer": reply[1]}
    for done, step in enumerate(problem.steps, start=1):
        slip = _slip(problem, chance, first=done) if chance.random() < ERROR_SHARE else None
        steps, answer, _ = slip or (problem.steps, str(problem.answer), [])
        yield {"after": step, "steps": steps[done:], "answer": answer}


def _carried(problem: Problem, place: int, change: Mapping[str, int] | None = None, step: Step | None = None) -> Reply:
    """The solution with one step told otherwise or one number changed, its result carried through."""
    steps = list(problem.kind.steps)
    steps[place] = step or steps[place]
    numbers = dict(problem.numbers)
    for number, each in enumerate(steps, start=1):
        numbers[f"r{number}"] = OPERATORS[each.sign](numbers[each.left], numbers[each.right])
        numbers |= change if change is not None and number == place + 1 else {}
    texts = [told(each, numbers, number, problem.words) for number, each in enumerate(steps, start=1)]
    return texts, str(numbers[f"r{len(steps)}"]), [texts[place]]


def _slip(problem: Problem, chance: random.Random, first: int = 0) -> Reply | None:
    """A wrong result from some step on, carried through; None where there is no such step."""
    if first == len(problem.kind.steps):
        return None
    place = chance.randrange(first, len(problem.kind.steps))
    result = problem.numbers[f"r{place + 1}"] + chance.choice((-10, -2, -1, 1, 2, 10))
    return _sensible(_carried(problem, place, {f"r{place + 1}": result}))


def _wrong_operation(problem: Problem, chance: random.Random) -> Reply | None:
    """Plus for minus, or plus for times."""
    place = chance.randrange(len(problem.kind.steps))
    step = problem.kind.steps[place]
    sign = {"+": "-", "-": "+", "*": "+"}[step.sign]
    return _sensible(_carried(problem, place, step=Step(step.left, sign, step.right, step.text)))


def _invented(problem: Problem, chance: random.Random) -> Reply | None:
    """A further step with a number that stands nowhere."""
    steps, answer, _ = _carried(problem, 0)
    extra = chance.choice([value for value in range(13, 20) if value not in problem.numbers.values()])
    last = f"Then {extra} more come , so {answer} + {extra} = {int(answer) + extra} ."
    return _sensible(([*steps, last], str(int(answer) + extra), [last]))


def _right_by_a_wrong_step(problem: Problem, chance: random.Random) -> Reply | None:
    """The right answer, although a step before it is wrong."""
    place = chance.randrange(len(problem.kind.steps) - 1)
    numbers = {**problem.numbers, f"r{place + 1}": problem.numbers[f"r{place + 1}"] + chance.choice((-3, 3, 10))}
    steps = problem.steps
    steps[place] = told(problem.kind.steps[place], numbers, place + 1, problem.words)
    return _sensible((steps, str(problem.answer), [steps[place]]))


def _sensible(reply: Reply) -> Reply | None:
    """None where a number is out of range: no teacher would write it, and the student has no token for it."""
    numbers = [int(word) for step in reply[0] for word in step.split() if word.lstrip("-").isdigit()]
    return reply if all(0 < number <= LARGEST for number in numbers) else None


ERRORS: Mapping[str, Callable[[Problem, random.Random], Reply | None]] = {
    "slip": _slip,
    "wrong operation": _wrong_operation,
    "invented quantity": _invented,
    "right answer by a wrong step": _right_by_a_wrong_step,
}


def _write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    atomic.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
