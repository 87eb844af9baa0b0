"""Racing: items that are certainly in the batch, or certainly out of it, get no further samples.

After the first samples of an item, what all K would show is hardly open any more: the same answers mostly come back.
The remaining ones are foreseen as draws from an urn (Blackwell and MacQueen 1973): an answer comes again in proportion
to how often it came, with the greedy explanation's counted once, and a new one with a weight that all candidates share
and that is read off them. With few samples all outcomes can be listed: the bounds on the vote entropy are exact.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loop.config import QueryConfig
from loop.query.divergence import ranks

Floats = NDArray[np.float64]


class Foreseen(NamedTuple):
    """The vote entropy that all K samples will show, for n items: its mean and its bounds, (n,) each."""

    low: Floats
    mean: Floats
    high: Floats


def undecided(parts: Sequence[Mapping[str, Any]], taken: int, cost: Floats, config: QueryConfig) -> NDArray[np.bool_]:
    """Which items need another sample, from the first `taken` samples of each; (n,).

    Args:
        parts: `Score.parts` of all candidates; an item that dropped out earlier has fewer samples.
        taken: Later samples are left out of the account, so that a race that was cut off goes on as it would have.
        cost: What the divergence of each is divided by, (n,).
        config: Batch size, number of samples, weight of the intra part, and confidence of the bounds.
    """
    seen = [{**each, "sampled_answers": each["sampled_answers"][:taken]} for each in parts]
    if len(seen) <= config.batch_size:
        return np.zeros(len(seen), dtype=np.bool_)
    inter = foresee(seen, config)
    order = np.sort(inter.mean)
    within = config.intra_weight * ranks([each["intra"] for each in seen])
    low, high = (
        (within + (1 - config.intra_weight) * _rank_among(order, bound)) / cost for bound in (inter.low, inter.high)
    )
    surely_out = high < np.sort(low)[-config.batch_size]
    surely_in = low > np.sort(high)[-config.batch_size - 1]
    racing = np.array([len(each["sampled_answers"]) == taken < config.samples for each in seen])
    undecided_: NDArray[np.bool_] = racing & ~surely_out & ~surely_in
    return undecided_


def foresee(parts: Sequence[Mapping[str, Any]], config: QueryConfig) -> Foreseen:
    """What the vote entropies of all K samples will be; known where an item has them all."""
    first = [(each["answer"], each["sampled_answers"][0]) for each in parts if each["sampled_answers"]]
    differ = (sum(one is None or one != other for one, other in first) + 1) / (len(first) + 2)
    novelty = round(differ / (1 - differ), 6)
    tail = (1 - config.racing_confidence) / 2
    rows = [_summary(each, config.samples, novelty, tail) for each in parts]
    low, mean, high = (np.array(column) for column in zip(*rows, strict=True))
    return Foreseen(low, mean, high)


def _summary(part: Mapping[str, Any], samples: int, novelty: float, tail: float) -> tuple[float, float, float]:
    greedy, sampled = part["answer"], part["sampled_answers"]
    counts = Counter(answer for answer in sampled if answer is not None)
    as_greedy = counts.pop(greedy, 0)
    others = tuple(sorted([*counts.values(), *[1] * sampled.count(None)]))
    left = samples - len(sampled)
    chances = _outcomes(None if greedy is None else as_greedy, others, left, novelty)
    values = sorted(chances)
    below = np.cumsum([chances[value] for value in values])
    low = values[int(np.searchsorted(below, tail, side="right"))]
    high = values[min(int(np.searchsorted(below, 1 - tail - 1e-12)), len(values) - 1)]
    return low, sum(value * chance for value, chance in chances.items()), high


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


def _rank_among(order: Floats, values: Floats) -> Floats:
    """The rank, scaled to [0, 1], that each value would have among sorted ones; the middle of those it equals."""
    middle = (np.searchsorted(order, values) + np.searchsorted(order, values, side="right") - 1) / 2
    ranked: Floats = np.clip(middle / max(1, len(order) - 1), 0, 1)
    return ranked
