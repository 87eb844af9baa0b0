"""How good a student is on the holdout, and whether a new one may replace the old."""

from collections.abc import Sequence

from loop.interval import Interval, paired_difference, wilson
from loop.ports import StudentPrediction
from loop.records import Item


def grade(items: Sequence[Item], predictions: Sequence[StudentPrediction]) -> list[bool]:
    """Which items are answered right; no answer is wrong, and so is an item without gold."""
    return [
        predicted.answer is not None and predicted.answer == item.gold
        for item, predicted in zip(items, predictions, strict=True)
    ]


def figures(correct: Sequence[bool]) -> dict[str, float]:
    """Accuracy with its 95 % interval and the number of items; accuracy 0 where there are none."""
    n = len(correct)
    low, high = wilson(sum(correct), n)
    return {"accuracy": sum(correct) / n if n else 0.0, "low": low, "high": high, "n": n}


def passes_gate(before: Sequence[bool], after: Sequence[bool], level: float) -> tuple[bool, Interval]:
    """Whether the new student may replace the old: not where the paired interval lies entirely below zero."""
    interval = paired_difference(before, after, level)
    return interval.high >= 0, interval
