"""Texts that read nearly the same: the Jaccard index of their runs of three words, found by MinHash."""

import re
from collections.abc import Mapping

from datasketch import MinHash, MinHashLSH

SHINGLE = 3
"""Words in a row whose sets are compared."""
PERMUTATIONS = 128
SLACK = 0.15
"""Pairs are looked up from so far below the wanted similarity, as the index estimates; what it finds is counted."""


def shingles(text: str) -> frozenset[str]:
    """The runs of three words of a text, whatever case and marks."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1)))


def sketch(text: str) -> MinHash:
    """A text as the index takes it."""
    found = MinHash(num_perm=PERMUTATIONS, seed=1)
    found.update_batch([shingle.encode() for shingle in sorted(shingles(text))])
    return found


def index(similarity: float) -> MinHashLSH:
    """An empty index of texts that are so much alike."""
    return MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)


def alike(
    texts: Mapping[str, tuple[str, str]], others: Mapping[str, tuple[str, str]], similarity: float
) -> dict[str, tuple[str, float]]:
    """For each text that reads like one of the others that one, by key, the likest first, and how much it does.

    A text is all that an item says and what it asks; both must be so much alike, as many items may share a context.
    """
    found: dict[str, tuple[str, float]] = {}
    known, runs = index(max(SLACK, similarity - SLACK)), {key: _runs(both) for key, both in others.items()}
    for key, (whole, _) in others.items():
        known.insert(key, sketch(whole))
    for key, both in texts.items():
        own = _runs(both)
        near = [(_least(own, runs[other]), other) for other in sorted(known.query(sketch(both[0])))]
        best, other = max(near, default=(0.0, ""))
        if best >= similarity:
            found[key] = (other, best)
    return found


Runs = tuple[frozenset[str], frozenset[str]]


def _runs(both: tuple[str, str]) -> Runs:
    return shingles(both[0]), shingles(both[1])


def _least(one: Runs, other: Runs) -> float:
    """The smaller of both Jaccard indices."""
    return min(len(mine & theirs) / len(mine | theirs) for mine, theirs in zip(one, other, strict=True))
