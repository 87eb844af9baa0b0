"""Texts that read nearly the same: the Jaccard index of their runs of three words, estimated by MinHash or exact."""

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from datasketch import MinHash, MinHashLSH

SHINGLE = 3
"""Words in a row whose sets are compared."""
PERMUTATIONS = 128
Runs = frozenset[tuple[str, ...]]


class _Blanks(dict[int, int]):
    """For `str.translate`: a blank for whatever is not part of a word, as `\\w` of a pattern sees it."""

    def __missing__(self, point: int) -> int:
        letter = chr(point)
        self[point] = found = point if letter.isalnum() or letter == "_" else ord(" ")
        return found


BLANKS = _Blanks()


def shingles(text: str) -> frozenset[str]:
    """The runs of three words of a text, whatever case and marks."""
    return frozenset(map(" ".join, _runs(text)))


def _runs(text: str) -> Runs:
    """The same as words."""
    return frozenset(_in_a_row(_words(text)))


def _words(text: str) -> list[str]:
    return text.lower().translate(BLANKS).split()


def _in_a_row(words: list[str]) -> Iterable[tuple[str, ...]]:
    """The runs of words in their order; fewer words are one run."""
    return zip(words, words[1:], words[2:], strict=False) if len(words) > 2 else [tuple(words)]


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
    has is like none of them, which most texts soon show. Nothing is estimated.
    """

    def __init__(self, texts: Iterable[str], similarity: float) -> None:
        self._similarity = similarity
        self._sets: list[Runs] = []
        self._places: dict[tuple[str, ...], list[int]] = {}
        self._known: set[tuple[str, ...]] = set()
        for place, text in enumerate(texts):
            own = _runs(text)
            self._sets.append(own)
            self._known |= own
            for each in self._first(own):
                self._places.setdefault(each, []).append(place)

    def near(self, text: str) -> list[tuple[int, float]]:
        """The places of the texts that are like this one, and how much each is."""
        words = _words(text)
        if self._is_new(words):
            return []
        own = frozenset(_in_a_row(words))
        candidates = {place for each in self._first(own) for place in self._places.get(each, ())}
        found = [(place, jaccard(own, self._sets[place])) for place in sorted(candidates)]
        return [(place, much) for place, much in found if much >= self._similarity]

    def _is_new(self, words: list[str]) -> bool:
        """Whether a text is soon seen to have more runs that are in none of the others than it may."""
        few, known, new = self._few(max(1, len(words) - SHINGLE + 1)), self._known, set()
        for each in _in_a_row(words):
            if each not in known:
                new.add(each)
                if len(new) >= few:
                    return True
        return False

    def _first(self, own: Runs) -> list[tuple[str, ...]]:
        return sorted(own)[: self._few(len(own))]

    def _few(self, runs: int) -> int:
        """One more than a text of so many runs can have beside what it shares with one that it is like."""
        return runs - ceil(self._similarity * runs) + 1


def jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    """What both have, as a share of what either has."""
    return len(one & other) / len(one | other)


class Resembling:
    """Items, each as all that it says and what it asks, and which of them another one reads like.

    Both must be so much alike, as many items may share a context.
    """

    def __init__(self, items: Iterable[tuple[str, str]], similarity: float) -> None:
        items, self._similarity = [*items], similarity
        self._asked = [shingles(question) for _, question in items]
        self._whole = Alike((whole for whole, _ in items), similarity)

    def likest(self, whole: str, question: str) -> tuple[float, int] | None:
        """How much the likest one is, and its place; the last of several."""
        near = self._whole.near(whole)
        own = shingles(question) if near else frozenset()
        best = max(((min(much, jaccard(own, self._asked[place])), place) for place, much in near), default=None)
        return best if best is not None and best[0] >= self._similarity else None


def alike(
    texts: Iterable[tuple[str, tuple[str, str]]], others: Mapping[str, tuple[str, str]], similarity: float
) -> dict[str, tuple[str, float]]:
    """For each text, given with its key, that reads like one of the others that one, the likest, and how much it does.

    The texts are looked at one by one. A text is all that an item says and what it asks (see `Resembling`).
    """
    keys = sorted(others)
    known = Resembling([others[key] for key in keys], similarity)
    found = {key: best for key, text in texts if (best := known.likest(*text))}
    return {key: (keys[place], much) for key, (much, place) in found.items()}
