"""Which worked items are shown to the teacher: those most like the item, from what people decided."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from loop.records import Item, Split

WORD = re.compile(r"[^\W\d_]+|\d+")

Steps = TypeVar("Steps")
Answered = TypeVar("Answered")


def nearest(item: Item, decided: Sequence[tuple[Item, Steps, Answered]], k: int) -> list[tuple[Item, Steps, Answered]]:
    """The `k` decided items whose rare words the item shares most (TF-IDF cosine); ties in the order of the keys.

    Holdout items and the item itself are never among them.
    """
    usable = [entry for entry in decided if entry[0].split is not Split.HOLDOUT and entry[0].key != item.key]
    if k <= 0 or not usable:
        return []
    counts = [_words(entry[0]) for entry in usable]
    found = Counter(word for words in counts for word in words)
    rarity = {word: math.log(1 + len(usable) / number) for word, number in found.items()}
    wanted = _words(item)
    scores = [_cosine(wanted, words, rarity) for words in counts]
    ranked = sorted(range(len(usable)), key=lambda position: (-scores[position], usable[position][0].key))
    return [usable[position] for position in ranked[:k]]


def _words(item: Item) -> Counter[str]:
    """The item's words; all numbers count as one word."""
    return Counter("#" if word.isdigit() else word for word in WORD.findall(item.text.casefold()))


def _cosine(left: Counter[str], right: Counter[str], rarity: dict[str, float]) -> float:
    """How alike two bags of words are, rare words counting more; sums are exact, so their order does not matter."""
    shared = math.fsum(left[word] * right[word] * rarity[word] ** 2 for word in left.keys() & right.keys())
    size = math.fsum((number * rarity[word]) ** 2 for word, number in right.items())
    return shared / math.sqrt(size) if size else 0.0
