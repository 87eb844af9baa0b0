"""Texts that read nearly the same: the Jaccard index of their runs of three words, estimated by MinHash or exact."""

import re
from collections.abc import Iterable, Mapping
from math import ceil

from datasketch import MinHash, MinHashLSH

SHINGLE = 3
"""Words in a row whose sets are compared."""
PERMUTATIONS = 128
WORD = re.compile(r"\w+")


def shingles(text: str) -> frozenset[str]:
    """The runs of three words of a text, whatever case and marks."""
    words = WORD.findall(text.lower())
    runs = zip(*(words[start:] for start in range(SHINGLE)), strict=False)
    return frozenset(map(" ".join, runs)) if len(words) >= SHINGLE else frozenset([" ".join(words)])


def sketch(text: str) -> MinHash:
    """A text as the index takes it."""
    found = MinHash(num_perm=PERMUTATIONS, seed=1)
    found.update_batch([shingle.encode() for shingle in sorted(shingles(text))])
    return found


def index(similarity: float) -> MinHashLSH:
    """An empty index of texts that are so much alike."""
    return MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)


class Alike:
    """Texts, and which of them share most of their runs of three words with another one (Jaccard).

    Two sets that overlap so far share one of the first few members in whichever order, so that only those are looked up
    (prefix filtering: Chaudhuri and others, ICDE 2006); and a text with more than a few members that none of the others
    has is like none of them. Nothing is estimated.
    """

    def __init__(self, texts: Iterable[str], similarity: float) -> None:
        self._similarity = similarity
        self._sets: list[frozenset[str]] = []
        self._places: dict[str, list[int]] = {}
        self._known: set[str] = set()
        for place, text in enumerate(texts):
            own = shingles(text)
            self._sets.append(own)
            self._known |= own
            for each in self._first(own):
                self._places.setdefault(each, []).append(place)

    def near(self, text: str) -> list[tuple[int, float]]:
        """The places of the texts that are like this one, and how much each is."""
        own = shingles(text)
        if len(own - self._known) >= self._few(own):
            return []
        candidates = {place for each in self._first(own) for place in self._places.get(each, ())}
        found = [(place, jaccard(own, self._sets[place])) for place in sorted(candidates)]
        return [(place, much) for place, much in found if much >= self._similarity]

    def _first(self, own: frozenset[str]) -> list[str]:
        return sorted(own)[: self._few(own)]

    def _few(self, own: frozenset[str]) -> int:
        """One more than a set can have beside what it shares with one that it is like."""
        return len(own) - ceil(self._similarity * len(own)) + 1


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """What both have, as a share of what either has."""
    return len(one & other) / len(one | other)


def alike(
    texts: Mapping[str, tuple[str, str]], others: Mapping[str, tuple[str, str]], similarity: float
) -> dict[str, tuple[str, float]]:
    """For each text that reads like one of the others that one, by key, the likest first, and how much it does.

    A text is all that an item says and what it asks; both must be so much alike, as many items may share a context.
    """
    found: dict[str, tuple[str, float]] = {}
    keys, asked = sorted(others), {key: shingles(question) for key, (_, question) in others.items()}
    known = Alike([others[key][0] for key in keys], similarity)
    for key, (whole, question) in texts.items():
        own = shingles(question)
        near = [(min(much, jaccard(own, asked[keys[place]])), keys[place]) for place, much in known.near(whole)]
        best, other = max(near, default=(0.0, ""))
        if best >= similarity:
            found[key] = (other, best)
    return found
