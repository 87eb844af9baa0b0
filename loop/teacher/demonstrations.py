"""Which worked items are shown to the teacher: groups that many items share, and those nearest to one item.

Items that share a group are shown the same members in the same order, at the very start of the prompt, so that an
endpoint which caches prompts reads them once. Which group an item gets goes by how near it is to the members.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loop.answer import Answer
from loop.ports import Example, Request
from loop.records import Item, Split

WORD = re.compile(r"[^\W\d_]+|\d+|\S")
MOST_WORDS = 4096
"""Words that count for likeness; the more frequent ones."""
SHARE = 2
"""A group for this many times as many worked items as it has members."""
MOST_GROUPS = 16
NEAR = 3
"""Members of a group are chosen among this many times as many that lie nearest to its centre."""
Floats = NDArray[np.float64]
Embed = Callable[[Sequence[Item]], NDArray[np.float32] | Floats]
"""Items as vectors of length 1, (items, dimensions)."""
Groups = Sequence[Sequence[Example]]


def by_words(known: Sequence[Item]) -> Embed:
    """Vectors by rare words (TF-IDF, its rarity from the known items); all numbers count as one word."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - a second, and not for every command

    words = TfidfVectorizer(analyzer=_words, max_features=MOST_WORDS)
    words.fit([item.text for item in known] or ["?"])
    return lambda items: np.asarray(words.transform([item.text for item in items]).toarray())


def may_be_shown(worked: Sequence[Example], item: Item | None = None) -> list[Example]:
    """The worked items that have steps and are no holdout; never the item itself, nor one with the same text."""
    return [
        each
        for each in worked
        if each.steps and each.item.split is not Split.HOLDOUT and (item is None or not _is_same(each.item, item))
    ]


def dev_slice(worked: Sequence[Example], size: int) -> tuple[list[Example], list[Example]]:
    """The items that a set is measured by, and those it may be made of.

    They are the first by a hash of their keys, at most half of all, so that they change little as more are decided.
    """
    ranked = sorted(worked, key=lambda each: hashlib.sha256(each.item.key.encode()).digest())
    size = min(size, len(ranked) // 2)
    return ranked[:size], sorted(ranked[size:], key=lambda each: each.item.key)


def grouped(
    worked: Sequence[Example], vectors: Floats, margins: Mapping[str, float], k: int, *, seed: int
) -> list[list[Example]]:
    """Groups of `k` worked items each: those around the centres of k-means, each group in the order of its keys.

    Of the items near a centre, different answers come first, and of one answer those that the student is least sure of.
    """
    if len(worked) <= k:
        return [sorted(worked, key=lambda each: each.item.key)] if worked and k else []
    from sklearn.cluster import KMeans  # noqa: PLC0415 - a second, and not for every command

    different = len(np.unique(vectors.round(6), axis=0))
    number = min(MOST_GROUPS, different, max(1, len(worked) // (SHARE * k)))
    centres = KMeans(number, n_init=4, random_state=seed).fit(vectors).cluster_centers_
    found = []
    for centre in centres:
        near = np.argsort(np.linalg.norm(vectors - centre, axis=1), kind="stable")[: NEAR * k]
        found.append(_members([worked[place] for place in near], margins, k))
    return list({tuple(each.item.key for each in group): group for group in found}.values())


def nearest_group(item: Item, groups: Groups, embed: Embed) -> Sequence[Example]:
    """The group whose members the item is nearest to on average; empty where there is none."""
    if len(groups) < 2:
        return groups[0] if groups else ()
    centres = np.array([embed([each.item for each in group]).mean(axis=0) for group in groups])
    return groups[int(np.argmax(centres @ embed([item])[0]))]


def nearest(item: Item, worked: Sequence[Example], embed: Embed, k: int) -> list[Example]:
    """The `k` worked items nearest to the item, the nearest last; of equally near ones the first by key."""
    usable = sorted(may_be_shown(worked, item), key=lambda each: each.item.key)
    if not usable or k <= 0:
        return []
    likeness = embed([each.item for each in usable]) @ embed([item])[0]
    return [usable[place] for place in np.argsort(-np.round(likeness, 6), kind="stable")[:k]][::-1]


def set_hash(groups: Groups) -> str:
    """Changes with what is shown and its order."""
    text = repr([[(each.item.key, each.steps, each.answer.canonical) for each in group] for group in groups])
    return hashlib.sha256(text.encode()).hexdigest()


def is_no_worse(right: Sequence[bool], before: Sequence[bool]) -> bool:
    """Whether a set answers as many of the same items right as the one before it."""
    return sum(right) >= sum(before)


def as_shown(worked: Sequence[Example]) -> list[tuple[Item, Sequence[str], Answer]]:
    """Worked items as a prompt takes them."""
    return [(each.item, each.steps, each.answer) for each in worked]


def with_one_less(request: Request) -> Request | None:
    """The request without its first demonstration; None where it has none."""
    if len(request.messages) < 4:
        return None
    return replace(request, messages=(request.messages[0], *request.messages[3:]))


def _members(near: Sequence[Example], margins: Mapping[str, float], k: int) -> list[Example]:
    """The first `k`, taking one of each answer in turn; of one answer the least margin comes first."""
    queues: defaultdict[Answer, list[Example]] = defaultdict(list)
    for each in sorted(near, key=lambda each: margins.get(each.item.key, 1.0)):
        queues[each.answer].append(each)
    turns = [(turn, place, each) for place, queue in enumerate(queues.values()) for turn, each in enumerate(queue)]
    chosen = [each for _, _, each in sorted(turns, key=lambda each: each[:2])[:k]]
    return sorted(chosen, key=lambda each: each.item.key)


def _is_same(one: Item, other: Item) -> bool:
    return one.key == other.key or one.text == other.text


def _words(text: str) -> list[str]:
    return ["#" if word.isdigit() else word for word in WORD.findall(text.casefold())]
