"""Explanation divergence: how far a student's explanations of one item disagree (after ELAD, arXiv 2402.13098).

Within one explanation: the answer flips as steps are added. Between explanations: sampled ones end in other answers,
and, where they point at words of the item, at other words. Answers are counted where there are only answers. Where the
student says how probable each allowed one is, it is the probability that two drawn answers differ: with certain answers
that is the same, and hardly any two items tie.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import rankdata

from loop.answer import Answer
from loop.config import QueryConfig
from loop.ports import Explanation, Forced, Student
from loop.records import Item


def late_weighted_flips(answers: Sequence[Answer | None]) -> float:
    """Share of the steps at which the answer changes, step k of m weighing 2k / (m (m + 1)); 1 without steps.

    Late flips are the symptom, early ones are normal. `answers` are those after 0..m steps; an unreadable one differs
    from every other.
    """
    steps = len(answers) - 1
    if steps < 1:
        return 1.0
    return sum(2 * step / (steps * (steps + 1)) for step, flip in enumerate(_flips(answers), start=1) if flip)


def expected_flips(probabilities: Sequence[Sequence[float]]) -> float:
    """`late_weighted_flips` of answers that are drawn with these probabilities after 0..m steps."""
    steps = len(probabilities) - 1
    if steps < 1:
        return 1.0
    rows = np.asarray(probabilities)
    differ = 1 - (rows[:-1] * rows[1:]).sum(axis=1)
    return float(np.average(differ, weights=np.arange(1, steps + 1)))


def mean_jensen_shannon(probabilities: Sequence[Sequence[float]]) -> float:
    """Mean Jensen-Shannon divergence (base 2) between the answers' distributions before and after each step."""
    if len(probabilities) < 2:
        return 1.0
    rows = np.asarray(probabilities)
    before, after = rows[:-1], rows[1:]
    middle = (before + after) / 2
    return float(np.mean(rel_entr(before, middle).sum(1) + rel_entr(after, middle).sum(1)) / (2 * math.log(2)))


def left_out_changes(answers: Sequence[Answer | None]) -> float:
    """Share of the steps without which the answer is another one; 1 where there are no steps.

    `answers` are those without step 1..m, and last that with all steps.
    """
    *without, whole = answers
    return 1.0 if not without else sum(each is None or each != whole for each in without) / len(without)


def vote_entropy(answers: Sequence[Answer | None]) -> float:
    """Entropy of the answers of K explanations, divided by log K; each unreadable answer is a class of its own."""
    if len(answers) < 2:
        return 0.0
    counts = [*Counter(answer.canonical for answer in answers if answer is not None).values()]
    counts += [1] * sum(answer is None for answer in answers)
    total = len(answers)
    entropy = sum(count / total * math.log(total / count) for count in counts)
    return entropy / math.log(total)


def expected_disagreement(probabilities: Sequence[Sequence[float]]) -> float:
    """Probability that the answers of two of the explanations differ, the mean over all pairs; 0 for one alone."""
    count = len(probabilities)
    if count < 2:
        return 0.0
    rows = np.asarray(probabilities)
    agree = (rows.sum(axis=0) ** 2).sum() - (rows**2).sum()
    return float(1 - agree / (count * (count - 1)))


def order_disagreement(explanations: Sequence[Sequence[str]]) -> float:
    """One minus the mean average overlap of all pairs: how much extractive explanations differ in their evidence.

    Average overlap (Fagin, Kumar and Sivakumar 2003) is the mean over depths d of the share that the first d steps of
    both have in common, so what comes first weighs most. 0 where fewer than two explanations have steps; a missing
    explanation shares nothing.
    """
    if sum(bool(each) for each in explanations) < 2:
        return 0.0
    overlaps = [_average_overlap(one, other) for one, other in combinations(explanations, 2)]
    return 1 - sum(overlaps) / len(overlaps)


def divergences(items: Sequence[Item], student: Student, config: QueryConfig, *, seed: int) -> list[dict[str, Any]]:
    """For each item the parts of its divergence, as `Score.parts` holds them."""
    explained = student.explain(
        items, copies=range(config.samples + 1), temperature=config.temperature, top_p=config.top_p, seed=seed
    )
    return divergences_of(items, explained, student, config)


def divergences_of(
    items: Sequence[Item], explained: Sequence[Sequence[Explanation]], student: Student, config: QueryConfig
) -> list[dict[str, Any]]:
    """As `divergences`, of explanations that are there: for each item the greedy one, then the samples."""
    greedy = [explanations[0] for explanations in explained]
    found = []
    for first, explanations, forced in zip(
        greedy, explained, student.answers_after(items, [_asked_after(each, config) for each in greedy]), strict=True
    ):
        sampled = [each.answer for each in explanations[1:]]
        found.append(
            {
                "intra": _intra(forced, config),
                "inter": _inter(explanations[1:]),
                "steps": list(first.steps),
                "answer": _canonical(first.answer),
                "forced_answers": [_canonical(each.answer) for each in forced],
                "sampled_answers": [_canonical(answer) for answer in sampled],
            }
        )
    return found


def _asked_after(explanation: Explanation, config: QueryConfig) -> list[tuple[str, ...]]:
    """The parts of an explanation after which an answer is forced: 0..m steps, or all but one and all."""
    steps = explanation.steps
    if config.intra == "leave_one_out":
        return [*(steps[:number] + steps[number + 1 :] for number in range(len(steps))), steps]
    return [steps[:count] for count in range(len(steps) + 1)]


def _intra(forced: Sequence[Forced], config: QueryConfig) -> float:
    answers, probabilities = [each.answer for each in forced], [each.probabilities for each in forced]
    if config.intra == "leave_one_out":
        return left_out_changes(answers)
    if config.intra == "jensen_shannon":
        return mean_jensen_shannon(probabilities)
    return expected_flips(probabilities) if all(probabilities) else late_weighted_flips(answers)


def _inter(sampled: Sequence[Explanation]) -> float:
    """Of the answers; where samples point at evidence too, half of it is of its order."""
    probabilities, steps = [each.probabilities for each in sampled], [each.steps for each in sampled]
    if not all(probabilities):
        return vote_entropy([each.answer for each in sampled])
    answers = expected_disagreement(probabilities)
    return (answers + order_disagreement(steps)) / 2 if any(steps) else answers


def _average_overlap(one: Sequence[str], other: Sequence[str]) -> float:
    depths = range(1, max(len(one), len(other)) + 1)
    return sum(len({*one[:depth]} & {*other[:depth]}) / depth for depth in depths) / len(depths) if depths else 1.0


def rank_average(intra: Sequence[float], inter: Sequence[float], weight: float) -> NDArray[np.float64]:
    """Weighted mean of both parts' ranks, each scaled to [0, 1]; ranks because the parts' scales differ.

    Rounded far below one rank, so that sums which differ only in their last bit still tie.
    """
    return np.round(weight * ranks(intra) + (1 - weight) * ranks(inter), 12)


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks scaled to [0, 1], 1 for the largest; equal values share the middle of theirs; NaN stays NaN."""
    ranked = np.asarray(rankdata(values, nan_policy="omit"), dtype=np.float64)
    scaled: NDArray[np.float64] = (ranked - 1) / max(1, np.isfinite(ranked).sum() - 1)
    return scaled


def _flips(answers: Sequence[Answer | None]) -> list[bool]:
    return [later is None or later != earlier for earlier, later in pairwise(answers)]


def _canonical(answer: Answer | None) -> str | None:
    return None if answer is None else answer.canonical
