"""How far reviewers agree beyond chance, for each question the page asks, with intervals over items. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from loop.interval import clopper_pearson_upper
from loop.records import ADJUDICATION, Rationale, Verdict, VerdictKind, role

DRAWS = 1000
SEED = 0
VERDICT, ANSWER, MARKS = "verdict", "answer", "step marks"
Counts = NDArray[np.int64]
"""How often each label was given, a row a unit."""
Measured = Callable[[NDArray[np.int64]], float | None]
"""A measure of the units with these numbers, some of them several times; None where it is not defined."""


class Measure(StrEnum):
    """What the field reports."""

    ALPHA = "Krippendorff's alpha"
    FLEISS = "Fleiss' kappa"
    COHEN = "Cohen's kappa"


@dataclass(frozen=True)
class Unit:
    """One thing that reviewers judged blindly, by reviewer. The steps of one rationale are units of one item."""

    item: str
    said: Mapping[str, str]


@dataclass(frozen=True)
class Agreement:
    """A measure of agreement with its 95 % interval, or why there is none.

    1 is perfect, 0 what chance would give. The interval is a percentile bootstrap over items, draws without two labels
    left out. Where nobody disagreed such draws are all alike: the lower end then is that of the exact interval of the
    share of items on which somebody disagrees.
    """

    question: str
    measure: Measure
    value: float | None
    low: float | None
    high: float | None
    n: int
    """Units with the verdicts that the measure needs."""
    items: int
    why: str = ""
    """Why there is no value."""
    between: tuple[str, ...] = ()
    """The two reviewers that Cohen's kappa is about."""


def questions(verdicts: Sequence[Verdict], rationales: Sequence[Rationale]) -> dict[str, list[Unit]]:
    """What reviewers said, by question: the verdict, the answer that holds, the marks of all steps and of each place.

    Only first and second reviews count: who adjudicates was called because others disagreed. Of one person there is
    one voice, the newest. A step without a mark counts as right, as the guidelines say, unless the rationale was not
    accepted and no step is marked at all. A reject names no answer.
    """
    about = {each.id: each for each in rationales}
    given: defaultdict[int, dict[str, Verdict]] = defaultdict(dict)
    for verdict in sorted(verdicts, key=lambda each: each.updated_at):
        if verdict.kind is not None and role(verdict.slot) != ADJUDICATION and verdict.rationale_id in about:
            given[verdict.rationale_id or 0][verdict.reviewer] = verdict
    found: defaultdict[str, list[Unit]] = defaultdict(list)
    for number in sorted(given):
        own, rationale = given[number], about[number]
        found[VERDICT].append(Unit(str(number), {who: str(each.kind) for who, each in own.items()}))
        answers = {who: answer for who, each in own.items() if (answer := _answer(each, rationale)) is not None}
        found[ANSWER].append(Unit(str(number), answers))
        marks = {who: each.marks for who, each in own.items() if each.marks or each.kind is VerdictKind.ACCEPT}
        for place in range(len(rationale.steps)):
            unit = Unit(str(number), {who: each.get(str(place), "ok") for who, each in marks.items()})
            found[MARKS].append(unit)
            found[f"step {place + 1}"].append(unit)
    return dict(found)


def agreements(question: str, units: Sequence[Unit], *, pairs: bool = True, seed: int = SEED) -> list[Agreement]:
    """Alpha of all, Fleiss' kappa, and Cohen's kappa of each pair of reviewers that judged something together."""
    found = [alpha(question, units, seed=seed), fleiss(question, units, seed=seed)]
    if pairs:
        together = {pair for unit in units for pair in combinations(sorted(unit.said), 2)}
        found += [cohen(question, units, pair, seed=seed) for pair in sorted(together)]
    return found


def alpha(question: str, units: Sequence[Unit], *, seed: int = SEED) -> Agreement:
    """Krippendorff's alpha for nominal labels: any number of reviewers, any of them missing."""
    twice = [unit for unit in units if len(unit.said) > 1]
    counts = _counts(twice)
    return _measured(question, Measure.ALPHA, twice, lambda rows: nominal_alpha(counts[rows]), seed)


def fleiss(question: str, units: Sequence[Unit], *, seed: int = SEED) -> Agreement:
    """Fleiss' kappa, which wants equally many verdicts on each unit: of those with the commonest number, two at least.

    It takes whoever judged as drawn from one crowd.
    """
    numbers = Counter(len(unit.said) for unit in units if len(unit.said) > 1)
    commonest = max(numbers, key=lambda number: (numbers[number], number), default=0)
    alike = [unit for unit in units if len(unit.said) == commonest] if commonest else []
    counts = _counts(alike)

    def kappa(rows: NDArray[np.int64]) -> float | None:
        from statsmodels.stats.inter_rater import fleiss_kappa  # noqa: PLC0415 - takes a second to load

        drawn = counts[rows]
        return float(fleiss_kappa(drawn)) if _varies(drawn) else None

    return _measured(question, Measure.FLEISS, alike, kappa, seed)


def cohen(question: str, units: Sequence[Unit], pair: tuple[str, str], *, seed: int = SEED) -> Agreement:
    """Cohen's kappa of two reviewers over what both judged."""
    both = [unit for unit in units if set(pair) <= set(unit.said)]
    labels = sorted({unit.said[who] for unit in both for who in pair})
    place = {label: number for number, label in enumerate(labels)}
    size = len(labels)
    cells = np.array([place[unit.said[pair[0]]] * size + place[unit.said[pair[1]]] for unit in both], dtype=np.int64)

    def kappa(rows: NDArray[np.int64]) -> float | None:
        # scikit-learn's gives the same number and takes thirty times as long, which the bootstrap pays a thousand times
        from statsmodels.stats.inter_rater import cohens_kappa  # noqa: PLC0415 - takes a second to load

        table = np.bincount(cells[rows], minlength=size * size).reshape(size, size)
        if not _varies(table + table.T):
            return None
        return float(cohens_kappa(table, return_results=False))

    return _measured(question, Measure.COHEN, both, kappa, seed, pair)


def nominal_alpha(counts: Counts) -> float | None:
    """Krippendorff's alpha from the counts of labels by unit; None where fewer than two labels were given.

    1 minus observed over expected disagreement, each verdict weighted alike (Krippendorff, *Content Analysis*, 2004,
    chapter 11): a unit with m verdicts adds its disagreeing pairs divided by m - 1.
    """
    given = counts.sum(axis=1)
    counts, given = counts[given > 1], given[given > 1]
    total = int(given.sum())
    expected = (total**2 - (counts.sum(axis=0) ** 2).sum()) / max(1, total - 1)
    if expected == 0:
        return None
    observed = ((given**2 - (counts**2).sum(axis=1)) / (given - 1)).sum()
    return float(1 - observed / expected)


def _answer(verdict: Verdict, rationale: Rationale) -> str | None:
    """The answer that holds after a verdict, where it names one."""
    if verdict.kind is VerdictKind.ACCEPT:
        return rationale.answer
    return verdict.answer if verdict.kind is VerdictKind.EDIT else None


def _counts(units: Sequence[Unit]) -> Counts:
    labels = sorted({label for unit in units for label in unit.said.values()})
    found = np.zeros((len(units), len(labels)), dtype=np.int64)
    for row, unit in enumerate(units):
        for label in unit.said.values():
            found[row, labels.index(label)] += 1
    return found


def _varies(counts: Counts) -> bool:
    """Whether two labels were given at all; with one there is nothing that chance could get wrong."""
    return int(np.count_nonzero(counts.sum(axis=0))) > 1


def _measured(
    question: str, measure: Measure, units: Sequence[Unit], of: Measured, seed: int, between: tuple[str, ...] = ()
) -> Agreement:
    """A measure with its interval, or why it is not defined."""
    names = list(dict.fromkeys(unit.item for unit in units))
    n, items = len(units), len(names)
    if not units:
        why = "no two reviewers judged the same"
        return Agreement(question, measure, None, None, None, n, items, why, between)
    value = of(np.arange(n))
    if value is None:
        why = f"everybody said {next(iter(units[0].said.values()))!r}, so chance alone would agree as well"
        return Agreement(question, measure, None, None, None, n, items, why, between)
    asked = [tuple(unit.said[who] for who in between) or tuple(unit.said.values()) for unit in units]
    if all(len(set(said)) == 1 for said in asked):
        return Agreement(question, measure, value, _lowest(asked, items), 1.0, n, items, between=between)
    drawn = _draws(units, names, of, seed)
    low, high = (float(end) for end in np.quantile(drawn, (0.025, 0.975)))
    return Agreement(question, measure, value, low, high, n, items, between=between)


def _draws(units: Sequence[Unit], names: Sequence[str], of: Measured, seed: int) -> list[float]:
    """The measure over items drawn with replacement, each with all of its units."""
    place = {name: number for number, name in enumerate(names)}
    item_of = np.array([place[unit.item] for unit in units])
    chance = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(DRAWS):
        times = np.bincount(chance.integers(0, len(names), len(names)), minlength=len(names))
        value = of(np.repeat(np.arange(len(units)), times[item_of]))
        if value is not None:
            found.append(value)
    return found


def _lowest(said: Sequence[tuple[str, ...]], items: int) -> float:
    """How low agreement may be where nobody disagreed on so many items."""
    labels = Counter(label for each in said for label in each)
    by_chance = 1 - sum((count / labels.total()) ** 2 for count in labels.values())
    return max(-1.0, 1 - clopper_pearson_upper(0, items, 0.975) / by_chance)
