"""How good a student is on the holdout, and whether a new one may replace the old."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from loop.answer import Span
from loop.interval import Interval, paired_difference, wilson
from loop.ports import StudentPrediction
from loop.records import Item

Floats = NDArray[np.float64]

RESAMPLES = 1000
"""Samples of the items that are drawn for an interval."""
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of items that it was counted over."""

    value: float
    low: float
    high: float
    n: int


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


def by_domain(domains: Sequence[str], correct: Sequence[bool]) -> dict[str, dict[str, float]]:
    """The accuracy in each domain, by name."""
    of: dict[str, list[bool]] = {name: [] for name in sorted(set(domains))}
    for name, right in zip(domains, correct, strict=True):
        of[name].append(right)
    return {name: figures(own) for name, own in of.items()}


def macro_f1(gold: Sequence[str], given: Sequence[str | None]) -> Estimate | None:
    """The mean over labels of F1, each label weighing the same however rare it is; None without items.

    Labels that are neither gold nor given have no F1 and do not count; an answer that cannot be read is none of them.
    """
    labels = sorted({*gold, *(each for each in given if each is not None)})
    true = np.array([[each == label for label in labels] for each in gold], dtype=np.float64)
    told = np.array([[each == label for label in labels] for each in given], dtype=np.float64)

    def mean_f1(weights: Floats) -> Floats:
        hits, named = weights @ (true * told), weights @ (true + told)
        there = named > 0
        return np.asarray((2 * hits / np.where(there, named, 1)).sum(axis=1) / there.sum(axis=1))

    return _bootstrap(mean_f1, len(gold))


def span_f1(gold: Sequence[AbstractSet[Span]], given: Sequence[AbstractSet[Span]], *, overlap: bool) -> Estimate | None:
    """F1 of the marks of all items together: a mark is right where gold has the same, or with `overlap` one of the same
    label that shares a character with it. None where nobody marked anything.
    """
    like = _overlaps if overlap else Span.__eq__
    counts = np.array(
        [
            (
                sum(any(like(mark, other) for other in true) for mark in told),
                sum(any(like(mark, other) for other in told) for mark in true),
                len(told),
                len(true),
            )
            for true, told in zip(gold, given, strict=True)
        ],
        dtype=np.float64,
    )

    def f1(weights: Floats) -> Floats:
        right, found, told, true = (weights @ counts).T
        precision, recall = right / np.maximum(told, 1), found / np.maximum(true, 1)
        total = precision + recall
        return np.asarray(2 * precision * recall / np.where(total > 0, total, 1))

    return _bootstrap(f1, len(counts)) if counts.size and counts[:, 2:].any() else None


def mean_share(per_item: Sequence[Sequence[bool]]) -> Estimate | None:
    """The share of what holds among all that the items have; items are drawn whole, as what one has hangs together."""
    counts = np.array([(sum(each), len(each)) for each in per_item if each], dtype=np.float64).reshape(-1, 2)

    def share(weights: Floats) -> Floats:
        held, of = (weights @ counts).T
        return np.asarray(held / of)

    return _bootstrap(share, len(counts))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """The exact two-sided p-value of McNemar's test: whether as many items were gained as lost, by a fair coin."""
    lost = sum(old and not new for old, new in zip(before, after, strict=True))
    gained = sum(new and not old for old, new in zip(before, after, strict=True))
    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def paired(before: Mapping[str, bool], after: Mapping[str, bool], level: float) -> dict[str, Any] | None:
    """Two students on the items that both answered: the difference in accuracy with its paired interval, and McNemar's
    test. None where they share no item.
    """
    keys = sorted(before.keys() & after.keys())
    if not keys:
        return None
    old, new = [before[key] for key in keys], [after[key] for key in keys]
    low, high = paired_difference(old, new, level)
    return {
        "before": sum(old) / len(keys),
        "after": sum(new) / len(keys),
        "difference": (sum(new) - sum(old)) / len(keys),
        "low": low,
        "high": high,
        "level": level,
        "gained": sum(each and not past for past, each in zip(old, new, strict=True)),
        "lost": sum(past and not each for past, each in zip(old, new, strict=True)),
        "p": mcnemar(old, new),
        "n": len(keys),
    }


def passes_gate(before: Sequence[bool], after: Sequence[bool], level: float) -> tuple[bool, Interval]:
    """Whether the new student may replace the old: not where the paired interval lies entirely below zero."""
    interval = paired_difference(before, after, level)
    return interval.high >= 0, interval


def _overlaps(one: Span, other: Span) -> bool:
    return one.label == other.label and one.start < other.end and other.start < one.end


def _bootstrap(statistic: Callable[[Floats], Floats], n: int) -> Estimate | None:
    """A statistic of the items as they are, (1, n) weights of one, and over items drawn with replacement."""
    if not n:
        return None
    [value] = statistic(np.ones((1, n)))
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
    low, high = np.quantile(statistic(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(min(value, low)), float(max(value, high)), n)
