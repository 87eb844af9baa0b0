"""What rationales and people's corrections add to what a student learns of the teacher's answers alone.

Of each set 800 rows are drawn by the seed, and 12.5, 25, 50 or all of them are learned: the answers alone, or answers
and rationales (Distilling Step-by-Step); students that write learn steps and answer as one target too. Both answer at
once, as in the paper; what they answer after their own rationale is measured beside it. On e-SNLI the teacher is
PaLM-540B, which is right on 73 %; on word problems it says the right solution. More rows are more steps: the epochs are
the same.

*Simulated people* correct a share of PaLM's 800 rows: some at random, or those of the largest risk. Where PaLM is
wrong the row gets the gold label and what a person once wrote to explain it, and where it is right it is accepted;
either way it is gold. The risk is one minus the out-of-fold probability of PaLM's label by a logistic regression on
words, fitted on PaLM's labels, so nothing of gold is in it. The settings that weigh people's work are laid on the same
corrected rows; a weight that a trial chooses is compared with a student that spares as many rows for validation.

A grid of cells (set, way, share, seed), each stored when done: run it again with the same file and it goes on.
Run as `python -m benchmarks.distil --json FILE [--data PATH] [--sets ...] [--ways ...] [--shares ...] [--seeds N]
[--jobs N] [--quick]`.
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
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from transformers.utils.logging import disable_progress_bar

from benchmarks.cells import run, stored
from benchmarks.efficiency import WORLDS, World
from benchmarks.kept import ROOT, code_hash, figure, write
from connectors.progress import RichProgress
from connectors.wiring import cache_folder
from loop.answer import Answer, AnswerKind, split_steps
from loop.config import StudentConfig
from loop.evaluation import grade
from loop.interval import of_mean
from loop.ports import Example
from loop.student.trainer import trainer

ROWS = 800
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the rows, that are learned."""
REVIEWED = (0.1, 0.2, 0.3)
"""Of the rows, that simulated people look at; all rows are learned."""
VALIDATED = (0.2, 0.3)
"""The same where some rows validate: of fewer reviews too few gold rows do, and there is no trial."""
SETS = ("esnli_palm", "esnli_palm.smollm2", "word_problems.smollm2")
REVIEWED_SETS = SETS[:2]
ANSWERS, STEPS, ONE = "answers alone", "step by step", "one target"
WEIGHINGS: Mapping[str, Mapping[str, object]] = {
    "": {},
    "gold_weight 2": {"gold_weight": 2.0},
    "gold_weight 4": {"gold_weight": 4.0},
    "validation": {"validation_share": 0.2},
    "gold_weight validated": {"gold_weight": "validated", "validation_share": 0.2},
    "risk_weight": {"risk_weight": True},
    "repaired_weight 2": {"repaired_weight": 2.0},
}
"""What is laid on corrected rows; the last for students that write."""
BESIDE = {"gold_weight validated": "validation"}
"""What a weighing is compared with, where not with corrected rows as they are."""
FLAGGED, AT_RANDOM = "flagged", "random"
WAYS = (ANSWERS, STEPS, ONE, *(f"{some} {name}".strip() for some in (FLAGGED, AT_RANDOM) for name in WEIGHINGS))
PAIRS = 3
"""A figure counts from so many seeds that both ways have."""
RESAMPLES = 10_000
SOURCES = [
    "benchmarks/distil.py",
    *(
        f"loop/student/{name}.py"
        for name in (
            *("checkpoint", "choosing", "decoder", "distill_step_by_step", "encoder", "evidence", "fitting", "lora"),
            *("prompts", "reading", "trainer", "training", "tree", "validation", "weighing", "writer"),
        )
    ),
]
CODE = code_hash(SOURCES)
"""Of the code that this process loaded."""
Cell = dict[str, Any]
Key = tuple[str, str, float, int]
Truth = tuple[tuple[str, ...], Answer]
"""Steps and answer that a person would write."""


def main() -> None:
    """Run the cells that are missing, print what came out, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--shares", nargs="+", type=float, help="default: all that a way is measured with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="e-SNLI with the encoder, all rows, three seeds")
    chosen = parser.parse_args()
    wanted = [
        key for key in grid(chosen.sets, chosen.ways, chosen.seeds) if chosen.shares is None or key[2] in chosen.shares
    ]
    if chosen.quick:
        wanted = [("esnli_palm", way, 1.0, seed) for seed in range(PAIRS) for way in (ANSWERS, STEPS)]
    cells = stored(chosen.json)
    names, keep = ("set", "way", "share", "seed"), partial(_write, chosen.json)
    run(wanted, names, cells, partial(run_cell, chosen.data), jobs=chosen.jobs, write=keep)
    _show(cells)


def grid(sets: Sequence[str], ways: Sequence[str], seeds: int) -> list[Key]:
    """The cells of some sets and ways, seed by seed; a way that a set's student cannot go is left out."""
    return [
        (name, way, share, seed)
        for seed in range(seeds)
        for name in sets
        for way in ways
        if _goes(name, way)
        for share in _shares(way)
    ]


def _shares(way: str) -> Sequence[float]:
    """Shares of the rows that a way is measured with."""
    if not _reviewed(way):
        return SHARES
    return VALIDATED if "validation_share" in WEIGHINGS[way.partition(" ")[2]] else REVIEWED


def _goes(name: str, way: str) -> bool:
    writes = name.endswith("smollm2")
    if _reviewed(way):
        return name in REVIEWED_SETS and (writes or "repaired" not in way)
    return writes or way != ONE


def _reviewed(way: str) -> bool:
    return _which(way) in (FLAGGED, AT_RANDOM)


def _which(way: str) -> str:
    return way.partition(" ")[0]


# --- one cell -------------------------------------------------------------------------------------------------------


def run_cell(data: Path, name: str, way: str, share: float, seed: int) -> Cell:
    """Train one student and measure it on dev: answering at once, and after its own rationale where it writes one."""
    torch.set_num_threads(1)
    disable_progress_bar()
    started = time.process_time()
    world: World = WORLDS[name][0](data)
    rows = random.Random(f"rows/{seed}").sample(list(world.teacher), ROWS)
    few = rows[: round(share * ROWS)]
    rows = corrected(rows, _truth(data), share, _which(way), seed) if _reviewed(way) else few
    config = _config(world.student, way)
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(config, world.task, cache_folder())
        quiet = RichProgress(Console(quiet=True))
        card = made.train(rows, seed=seed, folder=Path(folder) / "student", progress=quiet).card
        found = {}
        for answers_by, measured in (("answer", "accuracy"), ("rationale", "explained")):
            if _answers(config, way, answers_by):
                asked = config.model_copy(update={"answers_by": answers_by})
                student = trainer(asked, world.task, cache_folder()).student(Path(folder) / "student")
                right = grade(world.dev, student.predict(world.dev))
                found[measured] = sum(right) / len(right)
    return {
        "set": name,
        "way": way,
        "share": share,
        "seed": seed,
        **found,
        "trials": card.get("trials", {}),
        "cpu_seconds": round(time.process_time() - started),
        "code": CODE,
    }


def _config(student: StudentConfig, way: str) -> StudentConfig:
    """How a way trains the set's student."""
    changes: Mapping[str, object] = {"rationale_weight": 0.5, "answers_by": "answer"}
    if way == ANSWERS:
        changes = {"rationale_weight": 0.0, "answers_by": "answer"}
    elif way == ONE:
        changes = {"rationale_weight": 0.5, "answers_by": "rationale", "targets": "rationale_then_answer"}
    elif _reviewed(way):
        changes = {**changes, **WEIGHINGS[way.partition(" ")[2]]}
    return StudentConfig.model_validate({**student.model_dump(), **changes})


def _answers(config: StudentConfig, way: str, answers_by: str) -> bool:
    """Whether a student of a way is measured so: it learned it, and reviews are measured by what it answers at once."""
    if answers_by == "answer":
        return way != ONE
    return config.kind != "encoder" and way in (STEPS, ONE)


def corrected(
    rows: Sequence[Example], truth: Mapping[str, Truth], share: float, which: str, seed: int
) -> list[Example]:
    """The rows after simulated people looked at a share of them: gold where they did, with their risk where not."""
    risks = dict(zip((each.item.key for each in rows), risks_of(rows), strict=True))
    keys = sorted(risks, key=lambda key: -risks[key])
    if which == AT_RANDOM:
        random.Random(f"reviewed/{seed}").shuffle(keys)
    seen = set(keys[: round(share * len(rows))])
    return [
        _looked_at(each, truth[each.item.key]) if each.item.key in seen else replace(each, risk=risks[each.item.key])
        for each in rows
    ]


def _looked_at(row: Example, true: Truth) -> Example:
    """As a person leaves it who knows the truth."""
    steps, answer = true
    if row.answer == answer:
        return replace(row, gold=True)
    return replace(row, steps=steps, answer=answer, gold=True, repaired=frozenset(range(len(steps))))


def risks_of(rows: Sequence[Example]) -> list[float]:
    """How probably each label is wrong, by models that were fitted on the other rows' labels."""
    texts, labels = [each.item.text for each in rows], [each.answer.value for each in rows]
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=3, max_iter=500))
    shares = cross_val_predict(words, texts, labels, cv=5, method="predict_proba")
    names = sorted(set(labels))
    return [1 - float(share[names.index(label)]) for share, label in zip(shares, labels, strict=True)]


def _truth(data: Path) -> dict[str, Truth]:
    """What a person would write instead, by item: the gold label, and the first of three people's explanations."""
    with gzip.open(data / "rationales" / "esnli_palm.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {
        row["id"]: (tuple(split_steps(row["human_rationale"][0])), Answer(kind=AnswerKind.LABEL, value=row["gold"]))
        for row in rows
    }


# --- figures --------------------------------------------------------------------------------------------------------


def figures_of(cells: Sequence[Cell]) -> tuple[dict[str, Any], list[str]]:
    """The figures of every set, and in words what stands behind them or why there is none."""
    found: dict[str, Any] = {}
    notes: list[str] = []
    for name in dict.fromkeys(cell["set"] for cell in cells):
        own = {(cell["way"], cell["share"], cell["seed"]): cell for cell in cells if cell["set"] == name}
        for share in SHARES:
            label = name if share == 1 else f"{name}.{share:g}"
            found |= _gain(own, (STEPS, share), (ANSWERS, share), f"gain_over_answer_only.{label}")
        found |= _gain(own, (ONE, 1.0), (STEPS, 1.0), f"gain_one_target.{name}", measured="explained")
        found |= _share_to_match(own, name, notes)
        for share in REVIEWED:
            label = f"{name}.{share:g}"
            found |= _gain(own, (FLAGGED, share), (STEPS, 1.0), f"review_gain.{label}")
            found |= _gain(own, (FLAGGED, share), (AT_RANDOM, share), f"review_gain_over_random.{label}")
            for which in (FLAGGED, AT_RANDOM):
                for weighing in list(WEIGHINGS)[1:]:
                    named = f"gain_{weighing.replace(' ', '_')}.{label}.{which}"
                    beside = f"{which} {BESIDE.get(weighing, '')}".strip()
                    found |= _gain(own, (f"{which} {weighing}", share), (beside, share), named)
    return found, notes


def _gain(
    own: Mapping[tuple[str, float, int], Cell],
    better: tuple[str, float],
    worse: tuple[str, float],
    name: str,
    *,
    measured: str = "accuracy",
) -> dict[str, Any]:
    """Mean difference of two ways in accuracy, over the seeds that both have; Student's interval."""
    seeds = [seed for way, share, seed in own if (way, share) == better and (*worse, seed) in own]
    gains = [own[*better, seed][measured] - own[*worse, seed][measured] for seed in sorted(seeds)]
    return {name: figure(float(np.mean(gains)), *of_mean(gains), "accuracy")} if len(gains) >= PAIRS else {}


def _share_to_match(own: Mapping[tuple[str, float, int], Cell], name: str, notes: list[str]) -> dict[str, Any]:
    """Share of the rows with which rationales do as well as the answers of all of them; bootstrap over seeds."""
    needed = [(ANSWERS, 1.0), *((STEPS, share) for share in SHARES)]
    seeds = [seed for seed in sorted({key[2] for key in own}) if all((*each, seed) in own for each in needed)]
    if len(seeds) < PAIRS:
        return {}
    goals = np.array([own[ANSWERS, 1.0, seed]["accuracy"] for seed in seeds])
    curves = np.array([[own[STEPS, share, seed]["accuracy"] for share in SHARES] for seed in seeds])
    drawn = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    value = matching(curves.mean(axis=0).tolist(), float(goals.mean()))
    each = [matching(curves[some].mean(axis=0).tolist(), float(goals[some].mean())) for some in drawn]
    reached = sum(one is not None for one in each) / len(each)
    if value is None:
        notes.append(f"{name}: with rationales of all rows the student stays below the answers of all rows; no share")
        return {}
    notes.append(f"{name}: in {1 - reached:.0%} of the resamples the share would be above 1 and counts as 1 (censored)")
    low, high = np.quantile([1.0 if one is None else one for one in each], [0.025, 0.975])
    return {f"data_share_to_match.{name}": figure(value, float(low), float(high), "of the rows")}


def matching(curve: Sequence[float], goal: float) -> float | None:
    """Where a curve first reaches the goal, straight between shares; None where it never does."""
    if curve[0] >= goal:
        return SHARES[0]
    for (share, below), (more, above) in pairwise(zip(SHARES, curve, strict=True)):
        if above >= goal:
            return share + (more - share) * (goal - below) / (above - below)
    return None


def _write(file: Path, cells: Sequence[Cell]) -> None:
    figures, notes = figures_of(cells)
    settings = {
        "rows": ROWS,
        "shares": SHARES,
        "reviewed": REVIEWED,
        "seeds": len({cell["seed"] for cell in cells}),
        "people": "simulated from gold labels and explanations that people wrote for e-SNLI",
        "interval": "95 %, paired over seeds: Student's for gains, bootstrap for shares of the rows",
        "cells_of_older_code": dict(Counter(cell["way"] for cell in cells if cell["code"] != CODE)),
        "notes": notes,
    }
    write(file, "distil", settings=settings, figures=figures, sources=SOURCES, cells=list(cells))


def _show(cells: Sequence[Cell]) -> None:
    """Print the means and the figures."""
    table = Table("set", "way", "share", "seeds", "accuracy", "explained", "CPU s", box=None)
    for key in sorted({(cell["set"], cell["way"], cell["share"]) for cell in cells}):
        own = [cell for cell in cells if (cell["set"], cell["way"], cell["share"]) == key]
        means = [_mean(own, measured) for measured in ("accuracy", "explained", "cpu_seconds")]
        table.add_row(*map(str, key), str(len(own)), *means)
    console = Console()
    console.print(table)
    figures, notes = figures_of(cells)
    for note in notes:
        console.print(note)
    for name, each in figures.items():
        console.print(f"{name}: {each['value']} {each['unit']} ({each['low']} to {each['high']})")


def _mean(cells: Sequence[Cell], name: str) -> str:
    some = [cell[name] for cell in cells if name in cell]
    return f"{np.mean(some):.3f}" if some else ""


if __name__ == "__main__":
    main()
