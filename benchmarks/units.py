"""What one item costs in each stage of a round, on one core: the unit costs that `benchmarks.forecast` multiplies.

Two students: SmolLM2 explains SVAMP questions after it learned from GPT-3.5's rationales, and MiniLM labels e-SNLI
after it learned from PaLM-540B's. What is timed is what a round calls: training (per example and epoch), the doubt that
the sieve goes by, the scoring of candidates with all K samples and their forced answers, embeddings, the checks of a
default config with what 100 verdicts taught (no judge), that learning (per verdict), and the answers to the holdout.
Each repetition trains a student anew and takes other items. Milliseconds are CPU time of one thread; the value is the
median of the repetitions. The interval reaches from the least to the most, and at least a quarter to both sides: so
much more or less did the same work take at other hours of a machine that is shared. Loading the model is in its
training.

`prompt_tokens` and `reply_tokens` are of whole requests with two demonstrations, counted by SmolLM2's tokenizer, not
the teacher's; `explanation_tokens` are of what the student writes about a holdout item, 96 at most.

Run as `python -m benchmarks.units --json FILE [--data PATH] [--quick] [--seeds N]`. Run again with the same file, it
goes on.
"""

import argparse
import gzip
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from benchmarks import cells
from benchmarks.kept import ROOT, figure, write
from connectors.wiring import cache_folder
from loop.answer import Answer, AnswerKind, split_steps
from loop.checks.learn import Judged, learn
from loop.config import Config, StudentConfig, TaskConfig
from loop.ports import Example, Silent, Student
from loop.query import select
from loop.records import Author, Item, Rationale, Score, Split
from loop.stages.checking import Checking
from loop.stages.looking import Looking
from loop.stages.parts import Parts
from loop.store import items, rounds
from loop.store.database import Store
from loop.student.decoder import Decoder
from loop.student.trainer import DecoderTrainer, EncoderTrainer
from loop.teacher.prompt import request_for, written

STUDENTS = ("smollm2", "minilm")
UNITS = {
    "train_ms": "example and epoch",
    "sieve_ms": "item sieved",
    "explain_ms": "candidate explained",
    "embed_ms": "item embedded",
    "learn_ms": "verdict learned from",
    "check_ms": "rationale checked",
    "predict_ms": "holdout item answered",
}
TOKENS = ("prompt_tokens", "reply_tokens", "explanation_tokens")
VERDICTS = 100
MARGIN = 0.25
"""How far a time's interval reaches to both sides at least, as a share."""
SOURCES = [
    "benchmarks/units.py",
    *(f"loop/checks/{name}.py" for name in ("first_error", "flag", "learn", "reader", "verifier")),
    "loop/query/divergence.py",
    *(f"loop/student/{name}.py" for name in ("decoder", "encoder", "fitting", "reading", "tree", "writer")),
]
Row = dict[str, Any]
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Size:
    """How many of each are timed."""

    trained: int
    sieved: int
    explained: int
    checked: int
    predicted: int


SIZES = {"smollm2": Size(24, 32, 24, 12, 16), "minilm": Size(48, 100, 32, 16, 64)}
QUICK = {"minilm": Size(32, 64, 16, 12, 32)}
"""What SmolLM2 takes hangs on how long its explanations are, and a student of fewer rationales writes others."""
LONGEST = 96
"""Tokens of an explanation at most, as in the other benchmarks with word problems."""


def main() -> None:
    """Run the repetitions that are missing, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="MiniLM alone, fewer items, two repetitions")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions")
    chosen = parser.parse_args()
    seeds = 2 if chosen.quick else chosen.seeds
    keep = partial(_write, chosen.json, seeds, chosen.quick)
    wanted = [(student, seed) for seed in range(seeds) for student in (QUICK if chosen.quick else SIZES)]
    found, run = cells.stored(chosen.json), partial(run_cell, data=chosen.data, quick=chosen.quick)
    cells.run(wanted, ("student", "seed"), found, run, jobs=1, write=keep)
    table = Table("figure", "median", "least", "most", "of one", box=None)
    for name, each in _figures(found).items():
        table.add_row(name, *(f"{each[part]:g}" for part in ("value", "low", "high")), each["unit"])
    Console().print(table)


def run_cell(student: str, seed: int, *, data: Path, quick: bool) -> Row:
    """One repetition: what each unit took."""
    torch.set_num_threads(1)
    disable_progress_bar()
    size, examples, trainer = (QUICK if quick else SIZES)[student], *WORLDS[student](data)
    random.Random(seed).shuffle(examples)
    with tempfile.TemporaryDirectory() as folder, closing(Store(f"sqlite:///{folder}/store.db")) as store:
        store.migrate()
        repetition = _Repetition(trainer, size, seed, store, Path(folder))
        return {"student": student, "seed": seed, **repetition(examples)}


class _Repetition:
    """What a round does that follows on a trained student, each part timed."""

    def __init__(
        self, trainer: DecoderTrainer | EncoderTrainer, size: Size, seed: int, store: Store, folder: Path
    ) -> None:
        self._trainer, self._size, self._seed, self._store, self._folder = trainer, size, seed, store, folder
        self._config = Config(student=trainer.config, task=trainer.task)
        self._took: Row = {}

    def __call__(self, examples: Sequence[Example]) -> Row:
        """Milliseconds of CPU time by unit, and tokens."""
        learned, rest = examples[: self._size.trained], examples[self._size.trained :]
        student = self._trained(learned)
        scores = self._selected(student, [each.item for each in rest])
        self._checked(student, scores, rest)
        held = [each.item for each in rest[-self._size.predicted :]]
        said = self._timed("predict_ms", lambda: student.predict(held), len(held))
        if isinstance(student, Decoder):
            lengths = [len(student.tokens(each.explanation.text)) for each in said]
            self._took["explanation_tokens"] = float(np.mean(lengths))
            self._took |= _tokens(student, rest, self._config)
        return self._took

    def _timed(self, name: str, act: Callable[[], Thing], units: float) -> Thing:
        """What it gives; the milliseconds of CPU time that each unit of it took are noted."""
        started = time.process_time()
        found = act()
        self._took[name] = 1000 * (time.process_time() - started) / units
        return found

    def _trained(self, learned: Sequence[Example]) -> Student:
        folder = self._folder / "student"
        self._timed(
            "train_ms",
            lambda: self._trainer.train(learned, seed=self._seed, folder=folder, progress=Silent()),
            self._config.student.epochs * len(learned),
        )
        return self._trainer.student(folder)

    def _selected(self, student: Student, pool: Sequence[Item]) -> list[Score]:
        """Sieve, explain and embed; the scores of the explained items, which come first."""
        sieved, asked, query = pool[: self._size.sieved], pool[: self._size.explained], self._config.query
        self._timed("sieve_ms", lambda: student.doubt(sieved), len(sieved))
        scores = self._timed(
            "explain_ms", lambda: select.score_chunk(1, 0, asked, student, query, seed=self._seed), len(asked)
        )
        self._timed("embed_ms", lambda: student.embed(sieved), len(sieved))
        return scores

    def _checked(self, student: Student, scores: Sequence[Score], rest: Sequence[Example]) -> None:
        """Learn from verdicts on some rationales, and check those before them, whose items were explained."""
        count, config, store = self._size.checked, self._config, self._store
        items.add(store, [each.item for each in rest])
        opened = rounds.open_round(store, "main", config.model_dump(mode="json"))
        rounds.keep_scores(store, scores)
        embed = _embedder(self._trainer.student(None)) if config.student.kind == "encoder" else None
        looking = Looking(opened, store, student, config, embed=embed)
        some = rest[: count + VERDICTS]
        rows = [_rationale(each, opened.id or 0) for each in some]
        with store.writing() as session:
            session.add_all(rows)
        wrong = [each.answer != _GOLD[each.item.key] for each in some[count:]]
        judged = [
            Judged(case, {}, bad, steps=True, first_error=0 if bad else None)
            for case, bad in zip(looking(rows[count:]), wrong, strict=True)
        ]
        taught = self._timed("learn_ms", lambda: learn(judged, [], seed=self._seed), len(judged))
        assert taught.reader is not None
        parts = Parts(cast(Any, self._trainer), cast(Any, None), cast(Any, None), Silent(), self._folder)
        checking = Checking(opened, store, parts, config)
        self._timed("check_ms", lambda: checking(rows[:count], looking, taught), count)


def _embedder(student: Student) -> Callable[[Sequence[str]], Any]:
    """As a round embeds texts for the checks."""
    return lambda texts: student.embed([_item(str(at), text) for at, text in enumerate(texts)])


def _rationale(example: Example, round_id: int) -> Rationale:
    said = example.answer.canonical
    return Rationale(
        item_key=example.item.key, round_id=round_id, author=Author.TEACHER, steps=list(example.steps), answer=said
    )


def _tokens(student: Decoder, rest: Sequence[Example], config: Config) -> Row:
    """Mean tokens of a request with its demonstrations, and of a reply."""
    shown = [(each.item, each.steps, each.answer) for each in rest[: config.teacher.demonstrations]]
    some = rest[len(shown) :]
    sent = [
        sum(len(student.tokens(message["content"])) for message in request.messages)
        for request in (request_for(each.item, config.task, config.teacher, shown, 0) for each in some)
    ]
    got = [len(student.tokens(written(each.steps, each.answer.value, structured=True))) for each in some]
    return {"prompt_tokens": float(np.mean(sent)), "reply_tokens": float(np.mean(got))}


# --- students and what they learn -----------------------------------------------------------------------------------

_GOLD: dict[str, Answer] = {}
"""The right answers, by item key; items of the pool have none."""


def _word_problems(data: Path) -> tuple[list[Example], DecoderTrainer]:
    task = TaskConfig(answer=AnswerKind.NUMBER)
    examples = [
        _example(row, said["rationale"], said["answer"], AnswerKind.NUMBER)
        for row in _rows(data, "svamp")
        for said in row["teacher"]
        if said["model"] == "gpt-3.5-turbo" and _is_number(said["answer"])
    ]
    return examples, DecoderTrainer(StudentConfig(max_new_tokens=LONGEST), task, cache_folder())


def _entailments(data: Path) -> tuple[list[Example], EncoderTrainer]:
    rows = _rows(data, "esnli_palm")
    task = TaskConfig(answer=AnswerKind.LABEL, labels=dict.fromkeys(sorted({row["gold"] for row in rows}), ""))
    examples = [
        _example(row, said["rationale"], said["answer"], AnswerKind.LABEL)
        for row in rows
        for said in row["teacher"][:1]
        if said["answer"] in task.labels and split_steps(said["rationale"])
    ]
    config = StudentConfig(
        kind="encoder", model="all-minilm-l6-v2", learning_rate=1e-4, batch_size=16, answers_by="answer"
    )
    return examples, EncoderTrainer(config, task, cache_folder())


WORLDS: dict[str, Callable[[Path], tuple[list[Example], Any]]] = {"smollm2": _word_problems, "minilm": _entailments}


def _example(row: Row, rationale: str, answer: str, kind: AnswerKind) -> Example:
    _GOLD[row["id"]] = Answer(kind=kind, value=str(row["gold"]))
    return Example(
        _item(row["id"], row["question"]), tuple(split_steps(rationale)[:12]), Answer(kind=kind, value=answer)
    )


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _item(key: str, question: str) -> Item:
    return Item(key=key, question=question, split=Split.POOL, text_hash=key)


def _rows(data: Path, name: str) -> list[Row]:
    file = data / "rationales" / f"{name}.jsonl.gz"
    if not file.exists():
        raise SystemExit(f"{file}: no such file; name the real data with --data PATH")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# --- figures --------------------------------------------------------------------------------------------------------


def _figures(found: Sequence[Row]) -> Row:
    """Of each unit and student."""
    figures = {}
    for student in STUDENTS:
        own = [each for each in found if each["student"] == student]
        for name, unit in UNITS.items():
            if own:
                figures[f"{name}.{student}"] = _middle([each[name] for each in own], f"ms per {unit}", MARGIN)
    for name in TOKENS:
        if counts := [each[name] for each in found if name in each]:
            figures[name] = _middle(counts, "tokens")
    return figures


def _middle(values: Sequence[float], unit: str, margin: float = 0.0) -> Row:
    middle = float(np.median(values))
    return figure(middle, min(*values, middle * (1 - margin)), max(*values, middle * (1 + margin)), unit)


def _write(file: Path, seeds: int, quick: bool, found: Sequence[Row]) -> None:
    settings = {
        "repetitions": seeds,
        "items": {student: asdict(size) for student, size in (QUICK if quick else SIZES).items()},
        "threads": 1,
        "dtype": "SmolLM2 bfloat16 where the processor has it, MiniLM float32",
        "verdicts": VERDICTS,
        "samples": Config().query.samples,
        "time": "CPU milliseconds of one thread",
        "interval": f"least and most of the repetitions; of times at least {MARGIN} of the median to both sides",
    }
    write(file, "units", settings=settings, figures=_figures(found), sources=SOURCES, cells=list(found))


if __name__ == "__main__":
    main()
