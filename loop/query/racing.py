"""Racing: items that are almost surely in the batch, or out of it, get no further samples.

After the first samples of an item, what all K would show is hardly open any more: the same answers mostly come back.
The remaining ones are foreseen as draws from an urn (Blackwell and MacQueen 1973): an answer comes again in proportion
to how often it came, with the greedy explanation's counted once, and a new one with a weight that all candidates share
and that is read off them. With few samples all outcomes of an item can be listed. Drawn for all items together, they
give each item's chance to be in the batch.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from loop.config import QueryConfig
from loop.query.divergence import ranks

Floats = NDArray[np.float64]

DRAWS = 200
"""How often the samples that are still missing are drawn for all items."""
BELOW_AVERAGE = 0.9
"""An item is surely out only where its chance is this share of an average item's, however large the pool."""


def undecided(parts: Sequence[Mapping[str, Any]], taken: int, cost: Floats, config: QueryConfig) -> NDArray[np.bool_]:
    """Which items need another sample, from the first `taken` samples of each; (n,).

    Args:
        parts: `Score.parts` of all candidates; an item that dropped out earlier has fewer samples.
        taken: Later samples are left out of the account, so that a race that was cut off goes on as it would have.
        cost: What the divergence of each is divided by, (n,).
        config: Batch size, number of samples, weight of the intra part, and confidence.
    """
    seen = [{**each, "sampled_answers": each["sampled_answers"][:taken]} for each in parts]
    if len(seen) <= config.batch_size:
        return np.zeros(len(seen), dtype=np.bool_)
    chance = chances(seen, cost, config, seed=taken)
    out = min(1 - config.racing_confidence, BELOW_AVERAGE * config.batch_size / len(seen))
    racing = np.array([len(each["sampled_answers"]) == taken < config.samples for each in seen])
    undecided_: NDArray[np.bool_] = racing & (chance > out) & (chance < config.racing_confidence)
    return undecided_


def chances(parts: Sequence[Mapping[str, Any]], cost: Floats, config: QueryConfig, *, seed: int) -> Floats:
    """The chance of each item to be in the batch once all have K samples; (n,). Those that tie for a place share it."""
    draw = np.random.default_rng(seed)
    inter = np.empty((DRAWS, len(parts)))
    for place, (values, shares) in enumerate(_foreseen(parts, config)):
        inter[:, place] = draw.choice(values, DRAWS, p=shares)
    between = (rankdata(inter, axis=1) - 1) / max(1, len(parts) - 1)
    within = ranks([each["intra"] for each in parts])
    value = np.round((config.intra_weight * within + (1 - config.intra_weight) * between) / cost, 12)
    last = np.sort(value, axis=1)[:, [-config.batch_size]]
    above, tied = value > last, value == last
    places = config.batch_size - above.sum(axis=1, keepdims=True)
    found: Floats = (above + tied * (places / tied.sum(axis=1, keepdims=True))).mean(axis=0)
    return found


def foresee(parts: Sequence[Mapping[str, Any]], config: QueryConfig) -> Floats:
    """The vote entropy that all K samples of each item are expected to show, (n,); known where an item has them all."""
    return np.array([values @ shares for values, shares in _foreseen(parts, config)])


def _foreseen(parts: Sequence[Mapping[str, Any]], config: QueryConfig) -> list[tuple[Floats, Floats]]:
    """The vote entropies that all K samples of each item may show, each with its probability."""
    first = [(each["answer"], each["sampled_answers"][0]) for each in parts if each["sampled_answers"]]
    differ = (sum(one is None or one != other for one, other in first) + 1) / (len(first) + 2)
    novelty = round(differ / (1 - differ), 6)
    found = []
    for each in parts:
        greedy, sampled = each["answer"], each["sampled_answers"]
        counts = Counter(answer for answer in sampled if answer is not None)
        as_greedy = counts.pop(greedy, 0)
        others = tuple(sorted([*counts.values(), *[1] * sampled.count(None)]))
        outcomes = _outcomes(None if greedy is None else as_greedy, others, config.samples - len(sampled), novelty)
        shares = np.array(list(outcomes.values()))
        found.append((np.array(list(outcomes)), shares / shares.sum()))
    return found


@lru_cache(maxsize=4096)
def _outcomes(greedy: int | None, others: tuple[int, ...], left: int, novelty: float) -> Mapping[float, float]:
    """Probability of each vote entropy that can come of so many further samples.

    `greedy` counts the samples that agree with the greedy explanation, None where that has no answer.
    """
    if left == 0:
        return {_entropy((*others, greedy or 0)): 1.0}
    anchor = 0 if greedy is None else 1
    ways = [(novelty + 1 - anchor, greedy, (1, *others))]
    if greedy is not None:
        ways.append((greedy + 1, greedy + 1, others))
    for count, alike in Counter(others).items():
        rest = list(others)
        rest.remove(count)
        ways.append((count * alike, greedy, (*rest, count + 1)))
    total = sum(weight for weight, _, _ in ways)
    found: defaultdict[float, float] = defaultdict(float)
    for weight, again, counts in ways:
        for value, chance in _outcomes(again, tuple(sorted(counts)), left - 1, novelty).items():
            found[value] += weight / total * chance
    return found


def _entropy(counts: Sequence[int]) -> float:
    """Of so many votes, divided by its largest value; rounded so that equal ones are equal."""
    total = sum(counts)
    if total < 2:
        return 0.0
    return round(sum(count / total * math.log(total / count) for count in counts if count) / math.log(total), 12)
