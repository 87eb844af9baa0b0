"""A student's rationale spoiled in several ways, to see whether its answer follows what it writes.

After Lanham and others (arXiv 2307.13702), who add mistakes and put filler in the place of steps.
"""

import random
import re
from collections.abc import Sequence

from loop.checks.planted import NUMBER, other_number
from loop.records import Harm

WORD = re.compile(r"[^\W\d_]{3,}")
"""Words that may give way to another."""


def corrupted(
    steps: Sequence[str], others: Sequence[Sequence[str]], *, chance: random.Random
) -> dict[Harm, tuple[str, ...]]:
    """The steps with a number changed, a word changed, in another order, and another item's instead, where that can be.

    `others` are rationales of items with other answers; the new word is one of theirs.
    """
    found = {
        Harm.NUMBER: _number_changed(steps, chance),
        Harm.WORD: _word_changed(steps, others, chance),
        Harm.SHUFFLED: _shuffled(steps, chance),
        Harm.OTHER: tuple(chance.choice(others)) if others else None,
    }
    return {harm: changed for harm, changed in found.items() if changed is not None and changed != tuple(steps)}


def _number_changed(steps: Sequence[str], chance: random.Random) -> tuple[str, ...] | None:
    places = [(at, match.span()) for at, step in enumerate(steps) for match in NUMBER.finditer(step)]
    if not places:
        return None
    at, span = chance.choice(places)
    return _replaced(steps, at, other_number(steps[at], span, chance))


def _word_changed(
    steps: Sequence[str], others: Sequence[Sequence[str]], chance: random.Random
) -> tuple[str, ...] | None:
    places = [(at, match) for at, step in enumerate(steps) for match in WORD.finditer(step)]
    own = {match[0].casefold() for _, match in places}
    theirs = {word for some in others for step in some for word in WORD.findall(step)}
    new = sorted(word for word in theirs if word.casefold() not in own)
    if not places or not new:
        return None
    at, match = chance.choice(places)
    return _replaced(steps, at, (*match.span(), chance.choice(new)))


def _shuffled(steps: Sequence[str], chance: random.Random) -> tuple[str, ...] | None:
    if len(set(steps)) < 2:
        return None
    order = list(steps)
    while order == list(steps):
        chance.shuffle(order)
    return tuple(order)


def _replaced(steps: Sequence[str], at: int, change: tuple[int, int, str]) -> tuple[str, ...]:
    start, end, after = change
    return (*steps[:at], steps[at][:start] + after + steps[at][end:], *steps[at + 1 :])
