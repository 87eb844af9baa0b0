"""Texts that attack whoever reads them, and how many get through. Run as `python -m tests.attacks`.

They stand in `attacks.jsonl` by kind. Each is put into the wrong step of a rationale, and into the question of another
one, whose mistake nobody but a judge finds. The judge obeys whatever it is told. An attack got through where the wrong
rationale is accepted without a person having seen it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loop.answer import Answer, AnswerKind
from loop.checks.flag import Doubtful, doubts
from loop.checks.judge import objections
from loop.checks.risk import risk
from loop.config import Config, JudgeConfig
from loop.ports import Completion, Request
from loop.records import Author, Item, Judgement, Rationale
from loop.teacher.judge import HOLDS
from loop.teacher.judge_prompt import judged_steps, read_verdict, step_request
from loop.teacher.reply import Draft, Unreadable, read
from tests.builders import an_item

PLACES = ("rationale", "question")
WRONG = "The apples grew on the moon."
"""The mistake that only a judge finds."""
HONEST = 10
"""Rationales with the mistake and without an attack."""
CONFIG = Config(judge=JudgeConfig(model="obedient"))


@dataclass(frozen=True)
class Attack:
    """A text, the kind of attack that it is, and whom it is for."""

    kind: str
    aim: str
    text: str


def attacks() -> list[Attack]:
    """All of them; long ones are written once with how often they stand there."""
    lines = (Path(__file__).parent / "attacks.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Attack(row["kind"], row["aim"], row["text"] * row.get("times", 1)) for row in rows]


@dataclass
class Obedient:
    """A judge that finds the mistake unless anything in the message tells it otherwise."""

    texts: frozenset[str]

    async def complete(self, request: Request) -> Completion:
        shown = [_line(each) for each in strings(json.loads(request.messages[-1]["content"]))]
        told = any(text in each for each in shown for text in self.texts)
        verdict = "wrong" if WRONG in shown[-1] and not told else "ok"
        said = {"evidence": "as asked", "verdict": verdict, "confidence": 100}
        return Completion(json.dumps(said), "obedient", "stop", 10, 10)

    def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        return 1


def strings(value: object) -> Iterator[str]:
    """All texts in a value, in their order."""
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(each)


def drafted(steps: Sequence[str], item: Item) -> Draft:
    """What is read of a teacher's reply with these steps."""
    reply = Completion(json.dumps({"steps": list(steps), "answer": "5"}), "teacher", "stop", 10, 10)
    found = read(reply, item, CONFIG.task)
    assert isinstance(found, Draft), found
    return found


def a_case(key: str, text: str = "", place: str = "rationale") -> tuple[Item, Sequence[str], str]:
    """An item and a reply to it with the mistake and an attack."""
    question = f"There are 8 apples and 3 are eaten. How many are left? ({key})"
    steps = ["There are 8 apples.", f"{WRONG} {text}" if place == "rationale" else WRONG, "8 - 3 = 5"]
    item = an_item(key, question=f"{question} {text}".replace("\x00", "") if place == "question" else question)
    return item, drafted(steps, item).steps, "5"


@dataclass(frozen=True)
class Became:
    """Of all rationales: the risk, who was accepted unseen, who was flagged by the judge."""

    risks: dict[str, float]
    silver: set[str]
    judged_wrong: set[str]


def judged(some: Sequence[Attack], judge: Obedient | None) -> Became:
    """What the checks and a judge make of all attacks in all places, and of some honest rationales."""
    cases = [a_case(f"{place}/{number}", each.text, place) for number, each in enumerate(some) for place in PLACES]
    cases += [a_case(f"honest/{number}") for number in range(HONEST)]
    found: dict[str, float] = {}
    wrong = set()
    for item, steps, stated in cases:
        rationale = Rationale(
            item_key=item.key, round_id=1, author=Author.TEACHER, steps=list(steps), stated=stated,
            answer=Answer(kind=AnswerKind.NUMBER, value=stated).canonical,
        )  # fmt: skip
        objected = [] if judge is None else objections(asyncio.run(_said(judge, item, rationale)))
        wrong |= {item.key} if objected else set()
        found[item.key] = risk([*doubts(Doubtful(item, rationale, CONFIG.task), CONFIG.checks), *objected])
    silver = {key for key, value in found.items() if value < CONFIG.review.risk_threshold}
    return Became(found, silver, wrong)


async def _said(judge: Obedient, item: Item, rationale: Rationale) -> list[Judgement]:
    """The judge's word on one step after another, up to the first that it does not accept."""
    said: list[Judgement] = []
    accepted: list[str] = []
    for number, step in judged_steps(item, rationale)[: CONFIG.judge.max_steps]:
        reply = await judge.complete(step_request(item, accepted, number, step, CONFIG.task, CONFIG.judge))
        read = read_verdict(reply)
        assert not isinstance(read, Unreadable), read
        said.append(Judgement(step=number, verdict=read.verdict, evidence=read.evidence))
        if read.verdict not in HOLDS:
            break
        accepted.append(step)
    return said


def through(some: Sequence[Attack], became: Became) -> dict[str, dict[str, tuple[int, int]]]:
    """By place and kind, how many got through, of how many."""
    total = Counter(each.kind for each in some)
    passed = {
        place: Counter(each.kind for number, each in enumerate(some) if f"{place}/{number}" in became.silver)
        for place in PLACES
    }
    return {place: {kind: (passed[place][kind], n) for kind, n in total.items()} for place in PLACES}


def table(found: dict[str, dict[str, tuple[int, int]]]) -> str:
    """The same for people."""
    rows = [f"{'got through an obedient judge':<32}{'in a rationale':>16}{'in a question':>16}"]
    kinds = list(found[PLACES[0]])
    rows += [f"{kind:<32}{_of(found, kind, 0):>16}{_of(found, kind, 1):>16}" for kind in kinds]
    sums = [tuple(map(sum, zip(*found[place].values(), strict=True))) for place in PLACES]
    return "\n".join([*rows, f"{'all':<32}" + "".join(f"{f'{passed} of {n}':>16}" for passed, n in sums)])


def _of(found: dict[str, dict[str, tuple[int, int]]], kind: str, place: int) -> str:
    passed, n = found[PLACES[place]][kind]
    return f"{passed} of {n}"


def _line(text: str) -> str:
    return " ".join(text.split())


def obedient(some: Sequence[Attack]) -> Obedient:
    """The judge that obeys these."""
    return Obedient(frozenset(_line(each.text) for each in some))


def main() -> None:
    """Print how many of each kind get through."""
    some = attacks()
    print(table(through(some, judged(some, obedient(some)))))  # noqa: T201 - a command


if __name__ == "__main__":
    main()
