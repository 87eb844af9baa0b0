"""Revising a wrong explanation against explaining the item anew: dollars for each item that ends with the right answer.

The explanations are real: wrong solutions of GSM8K items by open models, whose first wrong step people marked
(ProcessBench). They stand for what a student wrote. Both ways go through the product's own prompts, parser and prices,
at $2.50 and $10 for a million tokens of input and output, four bytes a token, no discount for cached input.

*Scripted oracle*: a teacher that always finds the marked step, puts it right in as many words, writes a rest as long as
the student's, and always ends in the gold answer; explaining anew, it writes what gpt-4 really wrote on the item where
that was right (else the human solution). It never errs, so it says what the ways cost and nothing of how well a real
teacher finds steps. In `student_continue` the student goes on rightly at once, which is the best case. The ratio is of
cost per corrected item, so below 1 revising corrects more items for equal spend. `same_length` sets it against a
fresh explanation as long as the student's, `cached` at an endpoint that takes a tenth for input that began an earlier
request about the item, and for system messages that it has read.

*Weak teacher* (`--weak N`): SmolLM2-135M-Instruct behind a loopback server, plain replies, on the first N items; what
is right is the share of items whose answer is gold, whatever the steps. Run as
`python -m benchmarks.revision --json FILE [--data PATH] [--quick] [--weak N]`.
"""

import argparse
import asyncio
import gzip
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.kept import RESAMPLES, ROOT, figure, write
from loop.answer import Answer, AnswerKind, parse_answer, split_steps
from loop.config import TaskConfig, TeacherConfig
from loop.interval import wilson
from loop.ports import Completion, Explanation, Request, Silent, Teacher
from loop.records import Item, Query, Rationale, Revision, Split
from loop.teacher.ask import ask
from loop.teacher.continuation import settled_steps
from loop.teacher.prompt import written
from loop.teacher.revision import Todo, Way, expected_costs, revise, steps_of

MARKED, TOLD = "marks/processbench_gsm8k_math.jsonl.gz", "rationales/gsm8k.jsonl.gz"
INPUT, OUTPUT = 2.5, 10.0
BYTES_PER_TOKEN = 4
CACHED = 0.1
"""The discount that endpoints give at most on input that they have read before, as a share of the full price."""
WRONG_SHARE = 0.25
"""How often a step is taken to be wrong after right ones when the cheapest way is chosen, as before any revision."""
TASK = TaskConfig(instructions="Solve the word problem. Explain your reasoning in short steps.")
FRESH = "fresh"
SOURCES = [
    "benchmarks/revision.py",
    "loop/teacher/continuation.py",
    "loop/teacher/prompt.py",
    "loop/teacher/revision.py",
    "loop/teacher/revision_prompt.py",
]
Row = dict[str, Any]


@dataclass(frozen=True)
class Wrong:
    """A wrong explanation, its first wrong step among those that the teacher sees, and how the item is explained."""

    item: Item
    explanation: Explanation
    error: int
    gold: Answer
    anew: tuple[str, ...]

    @property
    def steps(self) -> list[str]:
        """As the teacher sees them."""
        return steps_of(self.item, self.explanation)


@dataclass
class Book:
    """What is spent and what comes of it, in memory, without a limit."""

    spent: dict[str, int] = field(default_factory=dict)
    right: dict[str, bool] = field(default_factory=dict)
    revisions: dict[str, Revision] = field(default_factory=dict)
    gold: Mapping[str, Answer] = field(default_factory=dict)

    def reserve(self, purpose: str, micro_usd: int, *, item_key: str = "", prompt_type: str = "") -> int:  # noqa: ARG002 - the port's names
        """A hold."""
        return 0

    def settle(self, charge_id: int, micro_usd: int) -> None:
        """Nothing is cut off here."""

    def release(self, charge_id: int) -> None:
        """Nothing."""

    def assume(self, charge_id: int) -> None:
        """Nothing."""

    def lengths(self, prompt_type: str) -> list[int]:  # noqa: ARG002 - the port's names
        """Every hold is as long as the config says."""
        return []

    def turn(self, tokens: int) -> float:  # noqa: ARG002 - the port's names
        """At once."""
        return 0.0

    def close(self, seconds: float) -> None:
        """Nothing."""

    def keep(self, charge_id: int, micro_usd: int, _prompt: object, reply: Any, rationale: Any = None) -> None:  # noqa: ARG002
        """Count what an item cost."""
        self.spent[reply.item_key] = self.spent.get(reply.item_key, 0) + micro_usd
        if rationale is not None:
            self.right[reply.item_key] = rationale.parsed == self.gold[reply.item_key]

    def settle_on(self, revision: Revision, student: Rationale, revised: Rationale | None) -> None:  # noqa: ARG002
        """What came of revising."""
        self.revisions[revision.item_key] = revision
        self.right[revision.item_key] = revised is not None and revised.parsed == self.gold[revision.item_key]

    def give_up(self, item_key: str, problem: str) -> None:
        """The item stays without an answer."""


@dataclass
class Oracle:
    """The scripted teacher: it knows each item's first wrong step and its answer."""

    known: Mapping[str, Wrong]
    anew: Callable[[Wrong], Sequence[str]]
    cached: float = 1.0
    """What a token of input costs, as a share, where an earlier request about the item or a first one began alike."""
    seen: dict[str, list[str]] = field(default_factory=dict)

    async def complete(self, request: Request) -> Completion:
        """What the script says to this request."""
        wrong, message = self.known[request.item_key], request.messages[-1]["content"]
        text = self._reply(wrong, message)
        return Completion(text, "oracle", "stop", self._input(request), _tokens(len(text.encode())))

    def _input(self, request: Request) -> int:
        """Tokens of input, those that the endpoint read before counted as the cache's price says."""
        whole, system = "".join(each["content"] for each in request.messages), request.messages[0]["content"]
        earlier = self.seen.setdefault(request.item_key, [])
        known = [system] if system in self.seen else []
        shared = max((shared_length(whole, each) for each in [*earlier, *known]), default=0)
        earlier.append(whole)
        self.seen.setdefault(system, [])
        return _tokens(len(whole.encode()) - round(shared * (1 - self.cached)))

    def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:  # noqa: ARG002 - the port's
        """Micro-dollars, rounded up."""
        return math.ceil(INPUT * input_tokens + OUTPUT * output_tokens)

    def _reply(self, wrong: Wrong, message: str) -> str:
        steps, error = wrong.steps, wrong.error
        body = json.loads(message) if message.startswith("{") else {}
        if "step_under_review" in body:
            slipped = body["step_under_review"] == steps[error] and len(body["accepted_steps"]) == error
            corrected = put_right(steps[error]) if slipped else None
            said = {"evidence": "It computes what it says.", "verdict": "wrong" if slipped else "ok"}
            return json.dumps(said | {"corrected_step": corrected, "confidence": 90})
        if "steps" in body:
            rest = [put_right(steps[error]), *steps[error + 1 :]]
            said = {"evidence": "It computes what it says.", "first_wrong": error + 1}
            return json.dumps(said | {"steps": rest, "answer": wrong.gold.value})
        settled = settled_steps(message)
        return written(steps[len(settled) :] if settled else self.anew(wrong), wrong.gold.value, structured=True)


def shared_length(one: str, other: str) -> int:
    """Characters with which both begin."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def put_right(step: str) -> str:
    """A step as long as the wrong one, and not the same."""
    return f"{step[:-1]};"


def read_wrong(data: Path) -> list[Wrong]:
    """The wrong GSM8K solutions that have a gold answer and a step to begin with, in the order of the file."""
    told = {row["question"].strip(): row for row in _rows(data / TOLD)}
    found = []
    for row in _rows(data / MARKED):
        known = told.get(row["question"].strip())
        if row["task"] == "processbench_gsm8k" and row["first_error"] is not None and known is not None:
            found.append(_wrong(row, known))
    return [each for each in found if each is not None and len(each.steps) < TASK.max_steps]


def _wrong(row: Row, known: Row) -> Wrong | None:
    """A solution with its answer; None where its wrong step only states the answer."""
    item = Item(key=row["id"], question=row["question"], split=Split.POOL, text_hash="")
    raw = tuple(" ".join(each["step"].split()) for each in row["step_labels"])
    gold = parse_answer(known["gold"], AnswerKind.NUMBER)
    assert gold is not None
    said = row["teacher"][0].get("answer")
    explanation = Explanation(raw, None if said is None else parse_answer(str(said), AnswerKind.NUMBER))
    before = len(steps_of(item, Explanation(raw[: row["first_error"]], explanation.answer)))
    steps = steps_of(item, explanation)
    if before >= len(steps):
        return None
    fours = [each["rationale"] for each in known["teacher"] if each["model"] == "gpt-4" and each["correct"]]
    text = (fours or known["human_rationale"])[0]
    return Wrong(item, explanation, before, gold, tuple(split_steps(text))[: TASK.max_steps])


def _rows(file: Path) -> list[Row]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def explained_anew(wrong: Sequence[Wrong], teacher: Teacher, config: TeacherConfig) -> Book:
    """Every item asked about as if there were no student."""
    book = Book(gold={each.item.key: each.gold for each in wrong})
    todo = [
        (Query(round_id=0, item_key=each.item.key, position=at, arm=""), each.item, 0) for at, each in enumerate(wrong)
    ]
    asyncio.run(
        ask(todo, teacher, book, TASK, config, round_id=0, demonstrations=lambda _: (), progress=Silent())  # type: ignore[arg-type]
    )
    return book


def revised(wrong: Sequence[Wrong], teacher: Teacher, config: TeacherConfig, way: Way | None) -> Book:
    """Every explanation revised, in the given way or in what should cost least."""
    book = Book(gold={each.item.key: each.gold for each in wrong})
    known = {each.item.key: each for each in wrong}
    todo = []
    for each in wrong:
        costs = expected_costs(each.item, each.steps, TASK, config, teacher.price, wrong=WRONG_SHARE)
        todo.append(Todo(each.item, each.explanation, way or min(costs, key=lambda one: costs[one]), costs))

    def go_on(item: Item, steps: Sequence[str]) -> Explanation:
        one = known[item.key]
        return Explanation((*steps, *one.steps[len(steps) :]), one.gold)

    asyncio.run(revise(todo, teacher, book, TASK, config, round_id=0, stored={}, go_on=go_on, progress=Silent()))
    return book


def measure_oracle(wrong: Sequence[Wrong]) -> tuple[Row, Row, list[Row]]:
    """Figures, settings and cells of the scripted teacher."""
    known, config = {each.item.key: each for each in wrong}, TeacherConfig(model="oracle")
    oracle = Oracle(known, lambda each: each.anew)
    alike = Oracle(known, lambda each: each.steps)
    books = {way.value: revised(wrong, oracle, config, way) for way in Way}
    cheap = {way.value: revised(wrong, Oracle(known, lambda each: each.anew, CACHED), config, way) for way in Way}
    cheap_fresh = explained_anew(wrong, Oracle(known, lambda each: each.anew, CACHED), config)
    books["auto"] = revised(wrong, oracle, config, None)
    fresh, long = explained_anew(wrong, oracle, config), explained_anew(wrong, alike, config)
    keys = [each.item.key for each in wrong]
    figures, settings = {}, {"items": len(wrong), "micro-dollars an item": {}}
    for name, book in {FRESH: fresh, "fresh, same length": long, **books}.items():
        assert all(book.right[key] for key in keys), f"the oracle did not correct every item: {name}"
        settings["micro-dollars an item"][name] = round(float(np.mean([book.spent[key] for key in keys])))
    for name, book in books.items():
        figures[f"cost_ratio_oracle.{name}"] = cost_ratio(book, fresh, keys)
        figures[f"cost_ratio_oracle_same_length.{name}"] = cost_ratio(book, long, keys)
    steps = np.array([len(each.steps) for each in wrong])
    for name, book in cheap.items():
        figures[f"cost_ratio_oracle_cached.{name}"] = cost_ratio(book, cheap_fresh, keys)
    figures["kept_share_oracle"] = share_kept(np.array([each.error for each in wrong]), steps)
    chosen = [book_way(books["auto"], key) for key in keys]
    settings["ways chosen by auto"] = {way.value: chosen.count(way.value) for way in Way}
    cells = [
        {
            "key": each.item.key,
            "teacher": "scripted oracle",
            "steps": len(each.steps),
            "first_wrong": each.error,
            **{name: book.spent[each.item.key] for name, book in {FRESH: fresh, "same_length": long, **books}.items()},
        }
        for each in wrong
    ]
    return figures, settings, cells


def book_way(book: Book, key: str) -> str:
    """The way in which an item was revised."""
    return book.revisions[key].way


def cost_ratio(ours: Book, fresh: Book, keys: Sequence[str]) -> Row:
    """Cost per corrected item over the same items, with its 95 % bootstrap interval over items."""
    above, below = (np.array([book.spent[key] for key in keys], dtype=float) for book in (ours, fresh))
    chance = np.random.default_rng(0)
    drawn = [chance.integers(len(keys), size=len(keys)) for _ in range(RESAMPLES)]
    low, high = np.quantile([above[each].sum() / below[each].sum() for each in drawn], [0.025, 0.975])
    return figure(above.sum() / below.sum(), float(low), float(high), "of fresh, scripted oracle")


def share_kept(kept: Any, steps: Any) -> Row:
    """The share of the students' steps that stands before the first wrong one."""
    chance = np.random.default_rng(0)
    drawn = [chance.integers(len(steps), size=len(steps)) for _ in range(RESAMPLES)]
    low, high = np.quantile([kept[each].sum() / steps[each].sum() for each in drawn], [0.025, 0.975])
    return figure(kept.sum() / steps.sum(), float(low), float(high), "of the steps")


def measure_weak(wrong: Sequence[Wrong]) -> tuple[Row, Row, list[Row]]:
    """Figures, settings and cells of the small real teacher."""
    from benchmarks.openvino_server import MODEL, serving  # noqa: PLC0415 - loads torch and OpenVINO
    from connectors.openai_teacher import OpenAITeacher  # noqa: PLC0415 - as above

    figures, cells = {}, []
    costs: Row = {}
    with serving() as address:
        config = TeacherConfig(
            base_url=address, model=MODEL, format="plain", max_completion_tokens=200, input_price=INPUT,
            output_price=OUTPUT, concurrency=8, timeout=600.0,
        )  # fmt: skip
        books = {FRESH: explained_anew(wrong, OpenAITeacher(config), config)}
        books |= {
            way.value: revised(wrong, OpenAITeacher(config), config, way) for way in (Way.ONE_SHOT, Way.TEACHER_FINISH)
        }
    for name, book in books.items():
        right = sum(book.right.values())
        low, high = wilson(right, len(wrong))
        figures[f"corrected_weak.{name}"] = figure(right / len(wrong), low, high, "of the items, SmolLM2-135M")
        costs[name] = round(sum(book.spent.values()) / len(wrong))
        cells += [
            {
                "key": each.item.key,
                "teacher": MODEL,
                "way": name,
                "micro_usd": book.spent.get(each.item.key, 0),
                "right": book.right.get(each.item.key, False),
                "problem": book.revisions[each.item.key].problem if each.item.key in book.revisions else None,
                "first_wrong": each.error,
                "found": book.revisions[each.item.key].first_wrong if each.item.key in book.revisions else None,
            }
            for each in wrong
        ]
    unusable = {name: sum(row.problem is not None for row in book.revisions.values()) for name, book in books.items()}
    del unusable[FRESH]
    return figures, {"weak items": len(wrong), "weak micro-dollars an item": costs, "weak unusable": unusable}, cells


def main() -> None:
    """Measure, print the figures, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="every second explanation, the scripted oracle alone")
    parser.add_argument("--weak", type=int, default=0, help="items for the small real teacher")
    parser.add_argument("--seeds", type=int, help="nothing is drawn but the bootstrap")
    chosen = parser.parse_args()
    wrong = read_wrong(chosen.data)[:: 2 if chosen.quick else 1]
    figures, settings, cells = measure_oracle(wrong)
    if chosen.weak and not chosen.quick:
        weak = measure_weak(wrong[: chosen.weak])
        figures, settings, cells = figures | weak[0], settings | weak[1], cells + weak[2]
    table = Table("figure", "value", "95 % interval", "unit", box=None, header_style="dim")
    table.columns[0].no_wrap = True
    for name, each in figures.items():
        table.add_row(name, f"{each['value']:.3f}", f"{each['low']:.3f} to {each['high']:.3f}", each["unit"])
    Console().print(table)
    Console().print(settings, highlight=False)
    if chosen.json:
        write(chosen.json, "revision", settings=settings, figures=figures, sources=SOURCES, cells=cells)


def _tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


if __name__ == "__main__":
    main()
