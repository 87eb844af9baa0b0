"""Acquisition functions: each names the candidates that it would ask about, best first.

All have one signature, so that they can be compared: what is known of the candidates, how many to name, and a source
of chance that breaks ties. Classes are the allowed answers where they are few, and the distinct answers
of the student's sampled explanations otherwise. Those that go by a doubt about each candidate (`HERDED`) cover what is
doubted where embeddings are given (`loop.query.herding`), and name the most doubtful, however alike, where none are.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist
from scipy.special import entr

from loop.query.herding import herded

Floats = NDArray[np.floating]
Positions = NDArray[np.intp]
Acquisition = Callable[["Candidates", int, np.random.Generator], Positions]
Signal = Literal["divergence", "probabilities", "embeddings"]

NEIGHBOURS = 20
"""Neighbours whose mean distance is the typicality of an item (TypiClust's K)."""
MOST_CLUSTERS = 500
SMALLEST_CLUSTER = 5
"""TypiClust passes over smaller clusters while there are others."""
BLOCK = 4096
"""Rows of a distance matrix that are in memory at a time."""


@dataclass(frozen=True)
class Candidates:
    """What is known of n candidates; a part that an acquisition function does not use may be empty.

    `divergence` is the rank average of both divergences and `mean_divergence` their mean, both (n,); `probabilities` is
    (n, classes) with rows filled up with zeros and no numbers where an item was not scored, `embeddings`
    (n, dimensions). `asked` holds the embeddings of the m items asked before, `trusted` in [0, 1] is (m,): 1 where the
    teacher's rationale was kept as it was. `cost` is (n,): what the value of each is divided by; functions that choose
    a whole set do not look at it.
    """

    divergence: Floats
    mean_divergence: Floats
    probabilities: Floats
    embeddings: Floats
    asked: Floats
    trusted: Floats
    cost: Floats

    def __len__(self) -> int:
        return max(len(self.divergence), len(self.probabilities), len(self.embeddings))

    def only(self, positions: Positions) -> "Candidates":
        """What is known of the candidates at these positions."""
        each = ("divergence", "mean_divergence", "probabilities", "embeddings", "cost")
        return replace(self, **{name: part[positions] for name in each if len(part := getattr(self, name))})


def explanation_divergence(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """Divergence within and between explanations (after ELAD, arXiv 2402.13098).

    Both are averaged by their ranks where they order candidates. What is to be covered is their mean as it is: it says
    how much more is doubted here than there, and where all is doubted alike nothing but coverage counts.
    """
    if known.embeddings.size:
        return _covering(known.mean_divergence, known, size, chance)
    return largest(known.divergence / known.cost, size, chance)


def entropy(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """Entropy of the answer (Settles 2009, "Active learning literature survey")."""
    return _by(entr(known.probabilities).sum(axis=1), known, size, chance)


def least_confidence(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """One minus the probability of the likeliest answer (Lewis and Gale 1994)."""
    return _by(1 - known.probabilities.max(axis=1, initial=0), known, size, chance)


def margin(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """Small difference between the two likeliest answers (Scheffer et al. 2001)."""
    return _by(1 - margins(known.probabilities), known, size, chance)


def coreset(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """Greedy k-center: again and again what is farthest from all that was asked (Sener and Savarese, 1708.00489)."""
    points = known.embeddings
    size = min(size, len(points))
    nearest = _nearest(points, known.asked)
    norms = np.einsum("ij,ij->i", points, points)
    chosen = np.empty(size, dtype=np.intp)
    for number in range(size):
        anywhere = number == 0 and not len(known.asked)
        chosen[number] = latest = chance.integers(len(points)) if anywhere else nearest.argmax()
        to_it = norms - 2 * (points @ points[latest]) + norms[latest]
        np.minimum(nearest, np.maximum(to_it, 0), out=nearest)
        nearest[chosen[: number + 1]] = -1
    return chosen


def badge(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """k-means++ over the gradients that the likeliest answer would give the last layer (BADGE, arXiv 1906.03671).

    A gradient is the outer product of (probabilities - answer) and embedding, so distances between gradients need only
    the dot products of both factors and no gradient is ever made.
    """
    errors = known.probabilities.copy()
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    unscored = np.isnan(errors).any(axis=1)
    errors[unscored] = 0
    points = known.embeddings
    squares = np.einsum("ij,ij->i", errors, errors) * np.einsum("ij,ij->i", points, points)
    size = min(size, len(points))
    chosen: list[int] = []
    nearest = np.where(unscored, 0.0, np.inf)
    for _ in range(size):
        nearest[chosen] = 0
        if not chosen:
            latest = int(largest(squares, 1, chance)[0])
        elif nearest.any():
            latest = int(chance.choice(len(points), p=nearest / nearest.sum()))
        else:
            latest = int(chance.choice(np.setdiff1d(np.arange(len(points)), chosen)))
        chosen.append(latest)
        to_it = squares - 2 * (errors @ errors[latest]) * (points @ points[latest]) + squares[latest]
        nearest = np.minimum(nearest, np.maximum(to_it, 0))
    return np.array(chosen, dtype=np.intp)


def typiclust(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """The most typical item of each of the largest clusters that nothing was asked of (TypiClust, arXiv 2202.02794)."""
    points, count = known.embeddings, len(known.embeddings)
    size = min(size, count)
    if not size:
        return np.empty(0, dtype=np.intp)
    label = clusters(
        np.concatenate([points, known.asked]) if len(known.asked) else points, size + len(known.asked), chance
    )
    asked_of = Counter(label[count:].tolist())
    left = {cluster: np.flatnonzero(label[:count] == cluster) for cluster in set(label[:count].tolist())}
    typical = {cluster: list(rows[np.argsort(_spread(points[rows]), kind="stable")]) for cluster, rows in left.items()}
    chosen: list[int] = []
    while len(chosen) < size:
        best = min(
            (cluster for cluster in typical if typical[cluster]),
            key=lambda cluster: (
                asked_of[cluster],
                len(left[cluster]) < SMALLEST_CLUSTER,
                -len(left[cluster]),
                cluster,
            ),
        )
        chosen.append(int(typical[best].pop(0)))
        asked_of[best] += 1
    return np.array(chosen, dtype=np.intp)


def teacher_student_gap(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """Where the teacher can be trusted and the student is unsure (after LLKD, arXiv 2411.08028).

    LLKD filters what the teacher has labelled. To save the asking, trust is estimated from the nearest items asked
    before; without any it is the same everywhere.
    """
    unsure = 1 - known.probabilities.max(axis=1, initial=0)
    return largest(unsure * _trust(known) / known.cost, size, chance)


def random_order(known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """Chance alone: what every other function is measured against."""
    return chance.permutation(len(known))[:size]


ACQUISITIONS: dict[str, tuple[Acquisition, frozenset[Signal]]] = {
    "explanation_divergence": (explanation_divergence, frozenset({"divergence"})),
    "entropy": (entropy, frozenset({"probabilities"})),
    "least_confidence": (least_confidence, frozenset({"probabilities"})),
    "margin": (margin, frozenset({"probabilities"})),
    "coreset": (coreset, frozenset({"embeddings"})),
    "badge": (badge, frozenset({"probabilities", "embeddings"})),
    "typiclust": (typiclust, frozenset({"embeddings"})),
    "teacher_student_gap": (teacher_student_gap, frozenset({"probabilities", "embeddings"})),
    "random": (random_order, frozenset()),
}
"""Each acquisition function with the signals that it looks at."""
HERDED = frozenset({"explanation_divergence", "entropy", "least_confidence", "margin"})
"""Those that cover what is doubted where embeddings are given."""


def largest(scores: Floats, size: int, chance: np.random.Generator) -> Positions:
    """Positions of the largest scores, largest first, ties in random order; a score that is no number comes last."""
    scores = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf)
    size = min(size, len(scores))
    if not size:
        return np.empty(0, dtype=np.intp)
    bound = np.partition(scores, len(scores) - size)[len(scores) - size]
    eligible = np.flatnonzero(scores >= bound)
    order = np.lexsort((chance.random(len(eligible)), -scores[eligible]))
    first: Positions = eligible[order[:size]]
    return first


def _by(doubt: Floats, known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    """By a doubt about each candidate, for its cost."""
    return _covering(doubt, known, size, chance) if known.embeddings.size else largest(doubt / known.cost, size, chance)


def _covering(doubt: Floats, known: Candidates, size: int, chance: np.random.Generator) -> Positions:
    return herded(doubt, known.embeddings, known.asked, known.cost, size, chance)


def margins(probabilities: Floats) -> Floats:
    """Difference of the two largest entries of each row; 1 where there is one class."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def filled(rows: Sequence[Sequence[float]]) -> Floats:
    """Rows of different lengths as one array, (rows, longest), filled up with zeros; an empty row is no number."""
    widest = max(map(len, rows), default=0)
    full = [[*row, *[0.0 if row else np.nan] * (widest - len(row))] for row in rows]
    return np.array(full).reshape(len(rows), widest)


def clusters(points: Floats, wanted: int, chance: np.random.Generator) -> Positions:
    """The k-means cluster of each point."""
    count = min(wanted, MOST_CLUSTERS, len(np.unique(points, axis=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster is none
        label: Positions = np.asarray(kmeans2(points, count, minit="++", rng=chance)[1], dtype=np.intp)
    return label


def _nearest(points: Floats, asked: Floats) -> Floats:
    """Squared distance of each point to the nearest asked one; infinite where nothing was asked."""
    nearest = np.full(len(points), np.inf)
    if len(asked):
        for start in range(0, len(points), BLOCK):
            nearest[start : start + BLOCK] = cdist(points[start : start + BLOCK], asked, "sqeuclidean").min(axis=1)
    return nearest


def _spread(points: Floats) -> Floats:
    """Mean distance of each point to its nearest neighbours among the others; 0 for a point alone."""
    others = min(NEIGHBOURS, len(points) - 1)
    if others < 1:
        return np.zeros(len(points))
    spread = np.empty(len(points))
    for start in range(0, len(points), BLOCK):
        distances = cdist(points[start : start + BLOCK], points)
        spread[start : start + BLOCK] = np.partition(distances, others, axis=1)[:, : others + 1].sum(axis=1) / others
    return spread


def _trust(known: Candidates) -> Floats:
    """Share of right rationales among the nearest asked items of each candidate, with one right and one wrong added."""
    trust = np.full(len(known.embeddings), 0.5)
    if len(known.asked):
        near = min(NEIGHBOURS, len(known.asked))
        for start in range(0, len(trust), BLOCK):
            distances = cdist(known.embeddings[start : start + BLOCK], known.asked)
            rows = np.argpartition(distances, near - 1, axis=1)[:, :near]
            trust[start : start + BLOCK] = (known.trusted[rows].sum(axis=1) + 1) / (near + 2)
    return trust
