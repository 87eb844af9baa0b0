"""Were the most similar items that people decided about given other labels?"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from loop.answer import Answer, AnswerKind, shown
from loop.checks.doubt import Check, Doubt, Doubtful, Need, excerpt
from loop.config import ChecksConfig
from loop.records import Item

WEIGHT = 0.3
"""Where none of the neighbours has the label. Measured on BANKING77 with three teachers' labels: 64 % of those so
doubted are wrong, 39 % of all (n = 117 and 276); on NLI, where neighbours differ anyway, no more than of all."""
NEIGHBOURS = 5
LEAST_SIMILAR = 0.3
"""Cosine below which the nearest item is no neighbour."""


class Decided:
    """Items with the answers that people settled on, to be searched by the words they share (TF-IDF cosine)."""

    def __init__(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        self._items, self._answers = items, answers
        self._words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+")
        self._vectors = self._words.fit_transform([item.text for item in items])

    def nearest(self, item: Item) -> list[tuple[float, Item, Answer]]:
        """The most similar other items with their similarity, the nearest first."""
        similar = (self._vectors @ self._words.transform([item.text]).T).toarray()[:, 0]
        order = [int(at) for at in np.argsort(-similar, kind="stable") if self._items[at].key != item.key]
        return [(float(similar[at]), self._items[at], self._answers[at]) for at in order[:NEIGHBOURS]]


def decided(items: Sequence[Item], answers: Sequence[Answer]) -> Decided | None:
    """The items to be searched; None where they are too few or have no words."""
    worded = [(item, answer) for item, answer in zip(items, answers, strict=True) if any(map(str.isalnum, item.text))]
    return Decided(*zip(*worded, strict=True)) if len(worded) > NEIGHBOURS else None


def other_decisions(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt where none of the nearest decided items has the label; only on tasks with labels."""
    given = doubtful.rationale.parsed
    if given is None or given.kind is not AnswerKind.LABEL or doubtful.decided is None:
        return []
    near = doubtful.decided.nearest(doubtful.item)
    if near[0][0] < LEAST_SIMILAR or any(answer == given for _, _, answer in near):
        return []
    favourite, count = Counter(shown(answer) for _, _, answer in near).most_common(1)[0]
    evidence = f"none of the {len(near)} most similar decided items has this label, {count} have “{excerpt(favourite)}”"
    return [Doubt("neighbours", None, f"{evidence}; the nearest is “{excerpt(near[0][1].question)}”", WEIGHT)]


CHECK = Check("neighbours", other_decisions, milliseconds=2, needs=frozenset({Need.VERDICTS}))
