"""Which of the decided examples say how good a student is while it is trained, instead of teaching it.

They are drawn by a hash of the item's key among all that are decided, so an item that validates does so in every round,
also where a training goes on from a student with some of the examples. What must teach nothing, the holdout and the
audits that are held back, is never among the decided examples.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from loop.answer import AnswerKind
from loop.ports import Example

FEWEST = 20
"""Examples that a validation part is expected to hold, or there is none: the standard error of a mean over 20 is still
a fifth of the spread of single losses, and of fewer examples none can be spared."""


def validating(examples: Sequence[Example], share: float) -> list[int]:
    """Numbers of the examples that validate; none where they would be too few.

    Of every label at least one example is left to learn from.
    """
    if share * len(examples) < FEWEST:
        return []
    places = [_place(each.item.key) for each in examples]
    chosen = {number for number, place in enumerate(places) if place < share}
    by_label: defaultdict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(examples):
        if each.answer.kind is AnswerKind.LABEL:
            by_label[each.answer.value].append(number)
    chosen -= {max(some, key=places.__getitem__) for some in by_label.values() if chosen.issuperset(some)}
    return sorted(chosen)


def marked(examples: Sequence[Example], share: float) -> list[Example]:
    """The examples, each said to validate or to teach; where that was drawn before, from more of them, it stands."""
    if any(each.validates is not None for each in examples):
        return list(examples)
    held = set(validating(examples, share))
    return [replace(each, validates=number in held) for number, each in enumerate(examples)]


def held(examples: Sequence[Example]) -> list[int]:
    """Numbers of the examples that were said to validate."""
    return [number for number, each in enumerate(examples) if each.validates]


def _place(key: str) -> float:
    """Where a key stands in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"validation/{key}".encode()).digest()[:8]) / 2**64
