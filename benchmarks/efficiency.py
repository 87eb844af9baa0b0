"""Accuracy against teacher spend: acquisition functions side by side, beside random and a peer's strategies.

A pool of 600, a random first batch of 60, three more chosen batches; the student is trained anew after each on what the
teacher said of all items asked. On e-SNLI the teacher is PaLM-540B with its rationales; on TREC and BANKING77 it says
the gold label; on word problems it says the right solution. Nothing is reviewed, and the control arm is off, so
the curves differ by what was chosen alone. The peer is scikit-activeml on the embeddings of the untrained encoder; what
it chooses trains the same student.

A grid of cells (set, method, seed), each stored when done: run it again with the same file and it goes on.
Run as `python -m benchmarks.efficiency --json FILE [--sets ...] [--methods ...] [--seeds N] [--jobs N] [--quick]`.
"""

import argparse
import gzip
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from benchmarks.cells import run, stored
from benchmarks.kept import ROOT, code_hash, figure, write
from connectors import charts
from connectors.curves import Curve, common, gain
from connectors.demo.problems import CAMPAIGN, problems
from connectors.progress import RichProgress
from connectors.wiring import cache_folder
from loop.answer import Answer, AnswerKind, split_steps
from loop.config import BudgetConfig, Config, QueryConfig, StudentConfig, TaskConfig, TeacherConfig
from loop.evaluation import grade
from loop.interval import of_mean
from loop.ports import Example, Student
from loop.query import select
from loop.query.acquisition import ACQUISITIONS
from loop.query.cost import relative_costs
from loop.records import Item, Split
from loop.student.trainer import DecoderTrainer, EncoderTrainer
from loop.teacher.prompt import request_for, written

POOL, BATCH, ROUNDS, DEV = 600, 60, 4, 500
GOOD_ENOUGH = 0.95
"""Share of the full-pool student's accuracy whose price is compared."""
RANKED = 3.0
"""A set is ranked where the full pool is this many standard deviations over seeds above the first round."""
PEERS = ("peer margin", "peer badge", "peer coreset", "peer typiclust")
FULL, RANDOM, OURS = "full pool", "random", "explanation_divergence"
ALIKE = "explanation_divergence, however alike"
HERDED_MARGIN = "margin, herded"
"""Divergence without herding and herding without divergence, to see what each is worth."""
METHODS = (
    RANDOM,
    FULL,
    OURS,
    ALIKE,
    "margin",
    HERDED_MARGIN,
    *PEERS,
    *(name for name in ACQUISITIONS if name not in (RANDOM, OURS, "margin")),
)
SMALL = (RANDOM, FULL, OURS, ALIKE, *PEERS)
"""The methods on sets whose student takes minutes a round."""
INPUT_PRICE, OUTPUT_PRICE = 0.15, 0.6
"""US dollars per million tokens."""
RESAMPLES = 10_000
PAIRS = 3
"""A peer and a spend ratio count from so many seeds that both have."""
SOURCES = [
    "benchmarks/efficiency.py",
    "loop/query/acquisition.py",
    "loop/query/cost.py",
    "loop/query/divergence.py",
    "loop/query/herding.py",
    "loop/query/select.py",
    *(
        f"loop/student/{name}.py"
        for name in (
            *("checkpoint", "encoder", "evidence", "fitting", "one_pass", "reading", "trainer", "training"),
            *("validation", "weighing"),
        )
    ),
]
CODE = code_hash(SOURCES)
"""Of the code that this process loaded."""
Row = dict[str, Any]


@dataclass(frozen=True)
class World:
    """A set of items with what the teacher says of each and what it costs, and the items a student is measured on."""

    task: TaskConfig
    student: StudentConfig
    teacher: Sequence[Example]
    dev: Sequence[Item]


def main() -> None:
    """Run the cells that are missing, print and draw the curves, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", choices=[*WORLDS], default=[*WORLDS])
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: all that a set is measured with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="TREC alone, three methods, three seeds")
    chosen = parser.parse_args()
    wanted = [
        (name, method, seed)
        for seed in range(chosen.seeds)
        for name in chosen.sets
        for method in METHODS
        if method in (chosen.methods or (SMALL if WORLDS[name][1] else METHODS))
    ]
    if chosen.quick:
        wanted = [("trec", method, seed) for seed in range(3) for method in (RANDOM, FULL, OURS, "peer margin")]
    cells = stored(chosen.json)
    names, keep = ("set", "method", "seed"), partial(_write, chosen.json)
    run(wanted, names, cells, partial(run_cell, chosen.data), jobs=chosen.jobs, write=keep)
    _show(cells, chosen.json.with_suffix(".svg"))


def run_cell(data: Path, name: str, method: str, seed: int) -> Row:
    """One curve: dollars spent and accuracy after each round."""
    torch.set_num_threads(1)
    disable_progress_bar()
    started = time.process_time()
    make, _ = WORLDS[name]
    world = make(data)
    pool = random.Random(f"pool/{seed}").sample(list(world.teacher), POOL)
    said = {each.item.key: each for each in pool}
    order = random.Random(f"first/{seed}").sample(sorted(said), POOL)
    asked = order if method == FULL else order[:BATCH]
    curve: list[tuple[float, float]] = []
    trainer = (EncoderTrainer if world.student.kind == "encoder" else DecoderTrainer)(
        world.student, world.task, cache_folder()
    )
    while True:
        with tempfile.TemporaryDirectory() as folder:
            examples = [said[key] for key in asked]
            trainer.train(examples, seed=seed, folder=Path(folder) / "s", progress=RichProgress(Console(quiet=True)))
            student = trainer.student(Path(folder) / "s")
        right = grade(world.dev, student.predict(world.dev))
        curve.append((sum(_price(said[key], world.task) for key in asked), sum(right) / len(right)))
        if len(asked) >= BATCH * ROUNDS:
            break
        left = [said[key].item for key in order if key not in set(asked)]
        if method == RANDOM:
            asked = order[: len(asked) + BATCH]
        elif method in PEERS:
            asked = [*asked, *_peer(method, left, [said[key] for key in asked], seed)]
        else:
            there = [said[key] for key in asked]
            usd = _expected(left, there, world.task)
            asked = [*asked, *_ours(method, (student, trainer.student(None)), left, usd, there, seed)]
    return {
        "set": name,
        "method": method,
        "seed": seed,
        "usd": [usd for usd, _ in curve],
        "accuracy": [accuracy for _, accuracy in curve],
        "cpu_seconds": round(time.process_time() - started),
        "code": CODE,
    }


def _ours(
    method: str,
    students: tuple[Student, Student],
    left: Sequence[Item],
    usd: Mapping[str, float],
    asked: Sequence[Example],
    seed: int,
) -> list[str]:
    """The keys that a round would pick without a control arm and without reviews, from the whole pool as peers do.

    Herding belongs to ours; what others score is picked however alike, as their papers have it. The students are the
    trained and the untrained one.
    """
    student, untrained = students
    name = {ALIKE: OURS, HERDED_MARGIN: "margin"}.get(method, method)
    settings = {"acquisition": name, "batch_size": BATCH, "random_share": 0.0, "candidates": POOL // BATCH}
    query = QueryConfig.model_validate(
        {**settings, "diversity": POOL // BATCH if method in (OURS, HERDED_MARGIN) else 1}
    )
    drawn = seed * 100 + len(asked)
    candidates = sorted(left, key=lambda item: item.key)
    signals = ACQUISITIONS[name][1]
    parts: dict[str, Mapping[str, Any]] = {}
    if signals & {"divergence", "probabilities"}:
        for number, chunk in enumerate(select.chunks(candidates, query.chunk_size)):
            scores = select.score_chunk(0, number, chunk, student, query, seed=drawn)
            parts |= {score.item_key: score.parts for score in scores}
    embedded = select.is_herded(query) or "embeddings" in signals
    embedder = untrained if select.is_herded(query) else student
    known = select.known(
        [parts.get(item.key, {}) for item in candidates],
        embedder.embed(candidates if embedded else []),
        embedder.embed([each.item for each in asked] if embedded else []),
        np.ones(len(asked) if embedded else 0),
        relative_costs([usd[item.key] for item in candidates], np.zeros(len(candidates)), BudgetConfig()),
        query,
    )
    wanted = select.best(candidates, known, query, seed=drawn)
    picked = select.compose(0, wanted, select.Pool(len(left), left), Config(query=query), seed=drawn)
    return [each.item_key for each in picked]


def _peer(method: str, left: Sequence[Item], asked: Sequence[Example], seed: int) -> list[str]:
    """The keys that scikit-activeml picks, with a logistic regression on frozen embeddings where it needs a model."""
    from skactiveml.classifier import SklearnClassifier  # noqa: PLC0415 - only this benchmark needs it
    from skactiveml.pool import Badge, CoreSet, TypiClust, UncertaintySampling  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    points = _minilm().embed([*(each.item for each in asked), *left]).astype(np.float64)
    names = sorted({each.answer.value for each in asked})
    labels = np.array([names.index(each.answer.value) for each in asked] + [np.nan] * len(left), dtype=float)
    model = SklearnClassifier(LogisticRegression(max_iter=1000), classes=range(len(names)), random_state=seed)
    strategy = {
        "peer margin": UncertaintySampling(method="margin_sampling", random_state=seed),
        "peer badge": Badge(random_state=seed),
        "peer coreset": CoreSet(random_state=seed),
        "peer typiclust": TypiClust(random_state=seed),
    }[method]
    more = {"clf": model} if method in ("peer margin", "peer badge") else {}
    picked = strategy.query(X=points, y=labels, batch_size=BATCH, **more)
    return [left[place - len(asked)].key for place in dict.fromkeys(map(int, picked))]


@cache
def _minilm() -> Student:
    """The untrained encoder."""
    config = StudentConfig(kind="encoder", model="all-minilm-l6-v2")
    task = TaskConfig(answer=AnswerKind.LABEL, labels={"yes": "", "no": ""})
    return EncoderTrainer(config, task, cache_folder()).student(None)


def _price(example: Example, task: TaskConfig) -> float:
    """Dollars for asking about an item: its prompt and reply at four characters a token."""
    return _usd(_prompt_length(example.item, task), _reply_length(example))


def _expected(left: Sequence[Item], asked: Sequence[Example], task: TaskConfig) -> dict[str, float]:
    """By key, what asking is expected to cost: how long a reply will be is only known from those that came before."""
    reply = float(np.mean([_reply_length(each) for each in asked]))
    return {item.key: _usd(_prompt_length(item, task), reply) for item in left}


def _prompt_length(item: Item, task: TaskConfig) -> int:
    return sum(len(message["content"]) for message in request_for(item, task, TeacherConfig(), (), 0).messages)


def _reply_length(example: Example) -> int:
    return len(written(example.steps, example.answer.value, structured=True))


def _usd(sent: float, got: float) -> float:
    return (sent * INPUT_PRICE + got * OUTPUT_PRICE) / 4 / 1e6


# --- sets -----------------------------------------------------------------------------------------------------------


@cache
def _esnli(data: Path) -> World:
    return _labelled(data / "rationales" / "esnli_palm.jsonl.gz", _encoder(1e-4, epochs=8, rationale_weight=0.5))


@cache
def _esnli_causal(data: Path) -> World:
    student = StudentConfig(epochs=4, learning_rate=2e-4, max_new_tokens=48, answers_by="answer")
    return _labelled(data / "rationales" / "esnli_palm.jsonl.gz", student)


@cache
def _banking77(data: Path) -> World:
    return _labelled(data / "gold" / "banking77.jsonl.gz", _encoder(5e-4, epochs=15))


@cache
def _trec(data: Path) -> World:
    return _labelled(data / "gold" / "trec.jsonl.gz", _encoder(1e-4, epochs=8))


@cache
def _word_problems(_: Path) -> World:
    made: dict[str, tuple[Item, tuple[str, ...]]] = {}
    for problem in problems(CAMPAIGN, "efficiency"):
        answer = Answer(kind=AnswerKind.NUMBER, value=str(problem.answer))
        item = _item(f"problem-{len(made):04}", problem.question, answer, problem.kind.domain)
        made.setdefault(problem.question, (item, tuple(problem.steps)))
        if len(made) == 3 * POOL:
            break
    rows = list(made.values())
    student = StudentConfig(epochs=3, max_new_tokens=96)
    said = [Example(item, steps, _gold(item)) for item, steps in rows[: 2 * POOL]]
    return World(TaskConfig(answer=AnswerKind.NUMBER), student, said, [item for item, _ in rows[-DEV // 2 :]])


def _labelled(file: Path, student: StudentConfig) -> World:
    """Items with labels; what the teacher says is in the file, or is the gold label without any steps.

    Replies without a readable answer are left out.
    """
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows: list[Row] = [json.loads(line) for line in lines]
    labels = sorted({row["gold"] for row in rows})
    task = TaskConfig(answer=AnswerKind.LABEL, labels=dict.fromkeys(labels, ""))
    said = []
    for row in rows:
        reply = row["teacher"][0] if row["teacher"] else {"answer": row["gold"], "rationale": ""}
        if row["split"] == "train" and reply["answer"] in labels:
            answer = Answer(kind=AnswerKind.LABEL, value=reply["answer"])
            said.append(
                Example(_item(row["id"], row["question"], None), tuple(split_steps(reply["rationale"])), answer)
            )
    dev = [row for row in rows if row["split"] == "dev"]
    random.Random(0).shuffle(dev)
    wanted = dev[: DEV if student.kind == "encoder" else DEV // 2]
    gold = [Answer(kind=AnswerKind.LABEL, value=row["gold"]) for row in wanted]
    return World(
        task,
        student,
        said,
        [_item(row["id"], row["question"], answer) for row, answer in zip(wanted, gold, strict=True)],
    )


def _item(key: str, question: str, answer: Answer | None, domain: str = "default") -> Item:
    return Item(
        key=key,
        question=question,
        domain=domain,
        split=Split.HOLDOUT if answer else Split.POOL,
        text_hash="",
        answer=answer.canonical if answer else None,
    )


def _gold(item: Item) -> Answer:
    assert item.gold is not None
    return item.gold


def _encoder(learning_rate: float, *, epochs: float, rationale_weight: float = 0.0) -> StudentConfig:
    return StudentConfig(
        kind="encoder",
        model="all-minilm-l6-v2",
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=16,
        rationale_weight=rationale_weight,
        answers_by="answer",
    )


WORLDS = {
    "trec": (_trec, False),
    "esnli_palm": (_esnli, False),
    "banking77": (_banking77, False),
    "word_problems.smollm2": (_word_problems, True),
    "esnli_palm.smollm2": (_esnli_causal, True),
}
"""How each set is made, and whether its student takes minutes a round."""


# --- figures --------------------------------------------------------------------------------------------------------


def figures_of(cells: Sequence[Row]) -> tuple[dict[str, Any], list[str]]:
    """The figures of every set that can be ranked, and in words what stands behind them or why there is none."""
    found: dict[str, Any] = {}
    notes = []
    for name in dict.fromkeys(cell["set"] for cell in cells):
        by_method: dict[str, dict[int, Row]] = {}
        for cell in cells:
            if cell["set"] == name:
                by_method.setdefault(cell["method"], {})[cell["seed"]] = cell
        if not {FULL, RANDOM, OURS} <= by_method.keys():
            continue
        first = [cell["accuracy"][0] for cell in by_method[RANDOM].values()]
        full = [cell["accuracy"][-1] for cell in by_method[FULL].values()]
        room, noise = float(np.mean(full) - np.mean(first)), float(max(_deviation(first), _deviation(full)))
        said = f"{name}: {np.mean(first):.3f} after the first round, {np.mean(full):.3f} with the full pool"
        if len(first) < 2 or room < RANKED * noise:
            notes.append(f"{said}; under {RANKED:g} standard deviations over seeds ({noise:.3f}), so not ranked")
            continue
        notes.append(f"{said}, standard deviation over seeds {noise:.3f}; {_seeds(by_method)}")
        goal = GOOD_ENOUGH * float(np.mean(full))
        gains = {
            method: _gain(by_method[OURS], cells)
            for method, cells in by_method.items()
            if method not in (OURS, FULL) and len(cells.keys() & by_method[OURS].keys()) >= PAIRS
        }
        if RANDOM not in gains:
            notes.append(f"{name}: fewer than {PAIRS} seeds of {OURS}, which tell nothing")
            continue
        found[f"auc_gain_random.{name}"] = gains[RANDOM]
        above = ", ".join(_above(method, gains[method]) for method in METHODS if method in gains)
        notes.append(f"{name}: {OURS} above {above}")
        gains = {peer: gains[peer] for peer in PEERS if peer in gains}
        if gains:
            best = min(gains, key=lambda peer: gains[peer]["value"])
            found[f"auc_gain_best_peer.{name}"] = gains[best]
            notes.append(f"{name}: the best peer, over the seeds that both have, is {best}")
        spends = {method: [_spend(cell, goal) for cell in by_method[method].values()] for method in (OURS, RANDOM)}
        for method, some in spends.items():
            censored = sum(each is None for each in some)
            notes.append(f"{name}: {method} did not reach {goal:.3f} in {censored} of {len(some)} seeds (censored)")
        pairs = _spends(by_method[OURS], by_method[RANDOM], goal)
        if len(pairs) >= PAIRS:
            found[f"spend_ratio_random.{name}"] = _spend_ratio(pairs)
            notes.append(f"{name}: the spend ratio is over the {len(pairs)} seeds in which both reached the goal")
    return found, notes


def _above(method: str, found: Row) -> str:
    return f"{method} {found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def _seeds(by_method: Mapping[str, Mapping[int, Row]]) -> str:
    """How many seeds each method has, those with as many together."""
    counted: dict[int, list[str]] = {}
    for method, cells in by_method.items():
        counted.setdefault(len(cells), []).append(method)
    return "; ".join(f"{count} seeds: {', '.join(sorted(counted[count]))}" for count in sorted(counted, reverse=True))


def _gain(ours: Mapping[int, Row], theirs: Mapping[int, Row]) -> Row:
    """Mean difference in accuracy along the dollars that both spent, over the seeds that both have."""
    pairs = [(_curve(ours[seed]), _curve(theirs[seed])) for seed in sorted(ours.keys() & theirs.keys())]
    gains = [each for one, other in pairs if (each := gain(one, other)) is not None]
    return figure(float(np.mean(gains)), *of_mean(gains), "accuracy")


def _curve(cell: Row) -> Curve:
    return Curve(cell["usd"], cell["accuracy"])


def _areas(cells: Sequence[Row]) -> dict[str, float]:
    """Of each method of a set, mean over seeds of the accuracy along the dollars that all its methods spent there."""
    found: dict[str, list[float]] = {}
    for seed in {cell["seed"] for cell in cells}:
        curves = {cell["method"]: _curve(cell) for cell in cells if cell["seed"] == seed and cell["method"] != FULL}
        if curves and (both := common(list(curves.values()))):
            for method, curve in curves.items():
                found.setdefault(method, []).append(curve.mean(*both))
    return {method: float(np.mean(some)) for method, some in found.items()}


def _spend(cell: Row, goal: float) -> float | None:
    """Dollars at which the curve first reaches the goal, straight between rounds; None where it never does."""
    pairs = list(zip(cell["usd"], cell["accuracy"], strict=True))
    if pairs[0][1] >= goal:
        return float(pairs[0][0])
    for (usd, below), (more, above) in pairwise(pairs):
        if above >= goal:
            return float(usd + (more - usd) * (goal - below) / (above - below))
    return None


def _spends(ours: Mapping[int, Row], theirs: Mapping[int, Row], goal: float) -> list[tuple[float, float]]:
    """Our spend to the goal and theirs, of the seeds in which both reach it."""
    seeds = sorted(ours.keys() & theirs.keys())
    both = [(_spend(ours[seed], goal), _spend(theirs[seed], goal)) for seed in seeds]
    return [(one, other) for one, other in both if one is not None and other is not None]


def _spend_ratio(pairs: Sequence[tuple[float, float]]) -> Row:
    both = np.array(pairs)
    rows = np.random.default_rng(0).integers(len(both), size=(RESAMPLES, len(both)))
    drawn = both[rows].mean(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return figure(float(both[:, 0].mean() / both[:, 1].mean()), float(low), float(high), "of random's spend")


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _write(file: Path, cells: Sequence[Row]) -> None:
    figures, notes = figures_of(cells)
    settings = {
        "pool": POOL,
        "batch": BATCH,
        "rounds": ROUNDS,
        "seeds": len({cell["seed"] for cell in cells}),
        "goal": f"{GOOD_ENOUGH} of the full-pool student's accuracy",
        "interval": "95 %, paired over seeds: Student's for gains, bootstrap for spend ratios (narrow with few pairs)",
        "peer": f"scikit-activeml {version('scikit-activeml')}, logistic regression on frozen MiniLM embeddings",
        "prices": f"{INPUT_PRICE} and {OUTPUT_PRICE} dollars per million tokens at four characters a token, not paid",
        "cells_of_older_code": dict(Counter(cell["method"] for cell in cells if cell["code"] != CODE)),
        "notes": [
            *notes,
            f"{OURS} looks at the whole pool, as peers do; a campaign draws five batches' worth by default",
        ],
    }
    write(file, "efficiency", settings=settings, figures=figures, sources=SOURCES, cells=list(cells))


def _show(cells: Sequence[Row], file: Path) -> None:
    """Print a table, and draw a plot for each set."""
    figures, notes = figures_of(cells)
    table = Table("set", "method", "seeds", "accuracy after each round", "mean at equal dollars", box=None)
    for name in dict.fromkeys(cell["set"] for cell in cells):
        curves, areas = {}, _areas([cell for cell in cells if cell["set"] == name])
        for method in METHODS:
            own = [cell for cell in cells if (cell["set"], cell["method"]) == (name, method)]
            if own:
                accuracy = np.array([cell["accuracy"] for cell in own])
                area = areas.get(method, float("nan"))
                means = " ".join(f"{each:.3f}" for each in accuracy.mean(axis=0))
                table.add_row(name, method, str(len(own)), means, f"{area:.4f}")
                if method != FULL:
                    curves[method] = (np.mean([cell["usd"] for cell in own], axis=0), accuracy)
        file.with_name(f"{file.stem}.{name}.svg").write_text(charts.comparison(curves), encoding="utf-8")
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note)
    for name, each in figures.items():
        console.print(f"{name}: {each['value']} {each['unit']} ({each['low']} to {each['high']})")


if __name__ == "__main__":
    main()
