"""How long a wrong rationale takes a reviewer: rewriting all that is wrong, or correcting a step to go on from.

Nobody was timed: the seconds are *simulated* by the keystroke-level model (Card, Moran & Newell, CACM 23(7), 1980: a
key 0.28 s for the average non-secretary typist at 40 words a minute, 1.35 s to make up one's mind) and by silent
reading of 238 words a minute (Brysbaert, J. Memory and Language 109, 2019). The rationales are real: wrong solutions
of ProcessBench (GSM8K and MATH), whose first wrong step people marked.

*Whole text*: read question and solution, choose edit, type the right answer, type the first wrong step and all steps
behind it anew. *Continue*: read question and steps to the first wrong one, choose continue, type that step anew; later
read the question again, the corrected step and what the teacher wrote behind it, and accept. The right rest is taken
to be as long as the wrong one. The teacher errs again behind a corrected step as often as the recorded solutions that
were right so far did (of the same set; wrong solutions are over-represented there), at any of the steps alike; after
three continuations the rest is typed. The wait for the teacher is not counted: other reviews lie between.

A step may also be deleted, so that the teacher writes it anew too: nothing is typed, but it may err there again. The
first step cannot be, as the teacher needs one to go on from.

The keys of each way are written out, and a test presses exactly these in a browser. Run as
`python -m benchmarks.continuing --json FILE [--data PATH] [--quick]`.
"""

import argparse
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.kept import RESAMPLES, ROOT, figure, write

FILE = "marks/processbench_gsm8k_math.jsonl.gz"
MOST_STEPS = 12
"""Steps that a rationale may have; longer solutions are left out."""
MOST_CONTINUATIONS = 3
TABS = 11
"""Presses of Tab from the verdict's key to the first box: from the top of the page past its bar and the verdicts."""
SOURCES = ["benchmarks/continuing.py", "review/interface.xml"]


@dataclass(frozen=True)
class Solution:
    """A recorded solution; `error` is the first wrong step, 0-based, None where all are right."""

    task: str
    question: str
    steps: tuple[str, ...]
    error: int | None


@dataclass(frozen=True)
class Model:
    """Seconds of a reviewer's acts, and what is assumed of the two ways."""

    key: float = 0.28
    decide: float = 1.35
    words_per_minute: float = 238.0
    reads_all: bool = True
    """Whether whoever rewrites the rest has read it; else reading stops at the first wrong step."""
    errs_again: float | None = None
    """How often a continuation is wrong; None: as often as was recorded."""
    deletes: bool = False
    """Whether the wrong step is deleted and not corrected, where it is not the first."""
    typed_share: float = 1.0
    """How much of the first wrong step is typed anew, in both ways; the rest of it stays."""
    answer: str = "12"
    """A right answer of usual length."""

    def read(self, *texts: str) -> float:
        """Seconds to read."""
        return sum(len(text.split()) for text in texts) * 60 / self.words_per_minute

    def kept(self, step: str) -> int:
        """So many characters of a wrong step stay."""
        return round(len(step) * (1 - self.typed_share))

    def press(self, keys: Sequence[str]) -> float:
        """Seconds to press keys one after another; what is held counts as a key."""
        return self.key * sum(1 + each.count("+") if len(each) > 1 else 1 for each in keys)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "seconds_ratio_continue": ("as described", {}),
    "seconds_ratio_continue_delete": ("the wrong step is deleted, not corrected", {"deletes": True}),
    "seconds_ratio_continue_in_place": ("a third of the wrong step is typed, in both ways", {"typed_share": 1 / 3}),
    "seconds_ratio_continue_slow_reader": ("reads half as fast", {"words_per_minute": 119.0}),
    "seconds_ratio_continue_fast_typist": ("types 90 words a minute", {"key": 0.12}),
    "seconds_ratio_continue_reads_to_error": ("whole text is read to the error only", {"reads_all": False}),
    "seconds_ratio_continue_never_wrong": ("no continuation is wrong", {"errs_again": 0.0}),
    "seconds_ratio_continue_half_wrong": ("half of the continuations are wrong", {"errs_again": 0.5}),
    "seconds_ratio_continue_always_wrong": ("all continuations are wrong", {"errs_again": 1.0}),
}


def edit_keys(steps: Sequence[str], at: int, answer: str) -> list[str]:
    """The keys that put a rationale right by hand: its answer, and its steps from `at` on, typed anew."""
    typed = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1) if number > at)
    return [
        *("e", *["Tab"] * TABS, "Ctrl+a", *answer),
        *("Tab", *to_line(at), *typed, "Tab", "Ctrl+Enter"),
    ]


def continue_keys(at: int, step: str) -> list[str]:
    """The keys that correct one step, typed anew, and have the teacher go on."""
    return ["t", *["Tab"] * TABS, *to_line(at), *f"{at + 1}. {step}", "Tab", "Ctrl+Enter"]


def delete_keys(at: int) -> list[str]:
    """The keys that delete one step, and have the teacher go on from the one before it."""
    return ["t", *["Tab"] * TABS, *to_line(at), "Delete", "Tab", "Ctrl+Enter"]


def to_line(at: int) -> list[str]:
    """The keys that choose all of a text box from the start of a line on, however long the lines before it are."""
    return ["Ctrl+Home", *["Ctrl+ArrowDown"] * at, "Ctrl+Shift+End"]


CONFIRM = ("a", "Ctrl+Enter")


def whole_text(solution: Solution, model: Model) -> float:
    """Seconds to put a wrong solution right by hand."""
    at = solution.error or 0
    read = solution.steps if model.reads_all else solution.steps[: at + 1]
    return model.read(solution.question, *read) + _by_hand(solution, at, model)


def continuing(solution: Solution, model: Model, errs: Callable[[Solution, int], float]) -> float:
    """Expected seconds to put it right with the teacher's help."""
    at = solution.error or 0
    return model.read(solution.question, *solution.steps[: at + 1]) + _from(solution, at, 1, model, errs)


def _by_hand(solution: Solution, at: int, model: Model) -> float:
    """The steps from `at` on: one decision for the verdict, one for each step, and the keys."""
    anew, kept = len(solution.steps) - at, model.kept(solution.steps[at])
    steps = [*solution.steps[:at], solution.steps[at][kept:], *solution.steps[at + 1 :]]
    return model.decide * (1 + anew) + model.press(edit_keys(steps, at, model.answer))


def _from(solution: Solution, at: int, time: int, model: Model, errs: Callable[[Solution, int], float]) -> float:
    """Step `at` was found wrong; the time-th continuation follows, and what it takes from there."""
    if time > MOST_CONTINUATIONS:
        return _by_hand(solution, at, model)
    step, deletes = solution.steps[at], model.deletes and at > 0
    at -= deletes
    keys = delete_keys(at + 1) if deletes else continue_keys(at, step[model.kept(step) :])
    corrected = model.decide * (1 if deletes else 2) + model.press(keys)
    rest = solution.steps[at + 1 :]
    back = model.read(solution.question, solution.steps[at])
    right = model.read(*rest) + model.decide + model.press(CONFIRM)
    if not rest:
        return corrected + back + right
    chance = errs(solution, at)
    wrong = [
        model.read(*rest[: place + 1]) + _from(solution, at + 1 + place, time + 1, model, errs)
        for place in range(len(rest))
    ]
    return corrected + back + (1 - chance) * right + (chance * sum(wrong) / len(wrong) if chance else 0.0)


def recorded_errors(solutions: Sequence[Solution]) -> Callable[[Solution, int], float]:
    """How often solutions that are right up to a step are wrong behind it, by set; those that end with it left out."""
    found: dict[tuple[str, int], float] = {}
    for task in {each.task for each in solutions}:
        for at in range(MOST_STEPS):
            so_far = [
                each
                for each in solutions
                if each.task == task and len(each.steps) > at + 1 and (each.error is None or each.error > at)
            ]
            found[task, at] = sum(each.error is not None for each in so_far) / max(1, len(so_far))
    return lambda solution, at: found[solution.task, at]


def seconds(wrong: Sequence[Solution], every: Sequence[Solution], model: Model) -> tuple[list[float], list[float]]:
    """Seconds for each wrong solution: with the teacher's help, and by hand."""
    recorded = recorded_errors(every)
    errs = recorded if model.errs_again is None else lambda _solution, _at: float(model.errs_again or 0)
    return [continuing(each, model, errs) for each in wrong], [whole_text(each, model) for each in wrong]


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """Ratio of the means over the same items, with its 95 % bootstrap interval over items."""
    one, other, chance = np.asarray(above), np.asarray(below), np.random.default_rng(0)
    drawn = [chance.integers(len(one), size=len(one)) for _ in range(RESAMPLES)]
    low, high = np.quantile([one[each].sum() / other[each].sum() for each in drawn], [0.025, 0.975])
    return figure(float(one.mean() / other.mean()), float(low), float(high), "of whole text, simulated")


def read_solutions(data: Path) -> list[Solution]:
    """The recorded solutions that are not too long, each step on one line."""
    with gzip.open(data / FILE, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    solutions = [
        Solution(
            row["task"],
            row["question"],
            tuple(" ".join(each["step"].split()) for each in row["step_labels"]),
            row["first_error"],
        )
        for row in rows
    ]
    return [each for each in solutions if len(each.steps) <= MOST_STEPS]


def measure(data: Path, *, quick: bool = False) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Figures, settings and a cell for each solution; quick takes every fourth wrong solution."""
    every = read_solutions(data)
    wrong = [each for each in every if each.error is not None][:: 4 if quick else 1]
    figures: dict[str, Any] = {}
    for name, (_, changed) in VARIANTS.items():
        figures[name] = paired_ratio(*seconds(wrong, every, replace(Model(), **changed)))
    ours, whole = seconds(wrong, every, Model())
    for task in sorted({each.task for each in wrong}):
        own = [at for at, each in enumerate(wrong) if each.task == task]
        name = f"seconds_ratio_continue.{task}"
        figures[name] = paired_ratio([ours[at] for at in own], [whole[at] for at in own])
    errs, open_ended = recorded_errors(every), [each for each in wrong if each.error != len(each.steps) - 1]
    again = float(np.mean([errs(each, each.error or 0) for each in open_ended]))
    settings = {
        "items": len(wrong),
        "mean seconds": {"whole text": round(float(np.mean(whole)), 1), "continue": round(float(np.mean(ours)), 1)},
        "a continuation errs again": round(again, 3),
        "variants": {name: said for name, (said, _) in VARIANTS.items()},
    }
    cells = [
        {
            "task": each.task,
            "steps": len(each.steps),
            "error": each.error,
            "continue": round(a, 2),
            "whole": round(b, 2),
        }
        for each, a, b in zip(wrong, ours, whole, strict=True)
    ]
    return figures, settings, cells


def main() -> None:
    """Compute the figures, print them, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="every fourth solution")
    parser.add_argument("--seeds", type=int, help="nothing is drawn but the bootstrap")
    chosen = parser.parse_args()
    figures, settings, cells = measure(chosen.data, quick=chosen.quick)
    table = Table("figure", "value", "95 % interval", "what", box=None, header_style="dim")
    table.columns[0].no_wrap = True
    for name, each in figures.items():
        said = VARIANTS.get(name, ("", {}))[0]
        table.add_row(name, f"{each['value']:.3f}", f"{each['low']:.3f} to {each['high']:.3f}", said)
    Console().print(table)
    Console().print(f"{settings['items']} wrong solutions; mean seconds {settings['mean seconds']}", highlight=False)
    if chosen.json:
        write(chosen.json, "continuing", settings=settings, figures=figures, sources=SOURCES, cells=cells)


if __name__ == "__main__":
    main()
