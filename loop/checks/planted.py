"""Known errors put into good rationales, to measure how many of them checks and reviewers find.

Each changes one step and leaves the rest as it was. What is planted is never decided about, trained on or exported.
"""

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from loop.records import Rationale


class ErrorKind(StrEnum):
    """What kind of error is planted."""

    ARITHMETIC = "arithmetic"
    QUANTITY = "quantity"
    UNIT = "unit"
    PREMISE = "premise"


@dataclass(frozen=True)
class Good:
    """A rationale that people accepted as it stood."""

    rationale: Rationale
    audited: bool
    """Whether people saw it by chance, not for its risk."""
    used: int
    """How often something was planted in it before."""


@dataclass(frozen=True)
class Planted:
    """Steps with one error: its kind, the 0-based step, and what stood there before and stands there now."""

    steps: tuple[str, ...]
    kind: ErrorKind
    step: int
    before: str
    after: str


NUMBER = re.compile(r"(?<![\w.,/])\d{1,9}(?:\.\d{1,4})?(?![\w/]|[.,]\d)")
RESULT = re.compile(r"(?<==)\s*\$?\s*(\d{1,9}(?:\.\d{1,4})?)(?![\w/]|[.,]\d)")
UNITS = (
    ("dollars", "cents"), ("dollar", "cent"), ("hours", "minutes"), ("hour", "minute"), ("days", "weeks"),
    ("day", "week"), ("months", "years"), ("month", "year"), ("kilometers", "meters"), ("km", "m"),
    ("kilograms", "grams"), ("kg", "g"), ("feet", "inches"), ("foot", "inch"), ("miles", "feet"),
    ("liters", "milliliters"), ("pounds", "ounces"),
)  # fmt: skip
OPPOSITES = (
    ("more", "less"), ("before", "after"), ("increases", "decreases"), ("all", "none"), ("always", "never"),
    ("indoors", "outdoors"), ("inside", "outside"), ("same", "different"), ("can", "cannot"), ("is not", "is"),
    ("are not", "are"), ("does not imply", "implies"), ("is", "is not"), ("are", "are not"), ("has", "has no"),
)  # fmt: skip
"""Of each pair the one that is found gives way to the other; the first pair that is found counts."""


def choose(good: Sequence[Good], size: int, *, ahead: int, seed: int) -> list[tuple[Good, Planted | None]]:
    """As many rationales with an error planted, or None for those to be shown as they are, one for each error.

    `ahead` says how many more errors than untouched ones there were before. Those used least come first, and among them
    those that people saw by chance: the others were doubted although they are right, so every error in them is found.
    Where no error can be planted, none is used untouched either.
    """

    def place(each: Good) -> tuple[int, bool, bytes]:
        return each.used, not each.audited, hashlib.sha256(f"{seed}/{each.rationale.item_key}".encode()).digest()

    chosen: list[tuple[Good, Planted | None]] = []
    for each in sorted(good, key=place):
        drawn = int.from_bytes(hashlib.sha256(f"error/{seed}/{each.rationale.item_key}".encode()).digest()[:8])
        bad = plant(each.rationale.steps, seed=drawn)
        if bad is not None and len(chosen) < size:
            chosen.append((each, None if ahead > 0 else bad))
            ahead += -1 if ahead > 0 else 1
    return chosen


def plant(steps: Sequence[str], *, seed: int) -> Planted | None:
    """One error in one step, of a kind drawn among those that the steps allow; None where they allow none."""
    chance = random.Random(seed)
    kinds = chance.sample(list(ErrorKind), len(ErrorKind))
    places = chance.sample(range(len(steps)), len(steps))
    for kind in kinds:
        for place in places:
            changed = _CHANGES[kind](steps[place], chance)
            if changed is not None:
                start, end, after = changed
                text = steps[place]
                bad = text[:start] + after + text[end:]
                return Planted((*steps[:place], bad, *steps[place + 1 :]), kind, place, text[start:end], after)
    return None


Change = tuple[int, int, str]
"""From where to where a step is replaced, and by what."""


def other_number(step: str, span: tuple[int, int], chance: random.Random) -> Change:
    """A number of a step, off by a little."""
    text = step[slice(*span)]
    off = chance.choice([-2, -1, 1, 2, 10])
    whole, dot, decimals = text.partition(".")
    value = int(whole) + off
    return (*span, f"{value if value >= 0 else int(whole) + 3}{dot}{decimals}")


def _wrong_result(step: str, chance: random.Random) -> Change | None:
    """The number behind an equals sign, off by a little."""
    found = [match.span(1) for match in RESULT.finditer(step)]
    return other_number(step, chance.choice(found), chance) if found else None


def _wrong_quantity(step: str, chance: random.Random) -> Change | None:
    """A number that is no result, taken for another."""
    results = {match.span(1) for match in RESULT.finditer(step)}
    found = [match.span() for match in NUMBER.finditer(step) if match.span() not in results]
    return other_number(step, chance.choice(found), chance) if found else None


def _wrong_unit(step: str, chance: random.Random) -> Change | None:  # noqa: ARG001 - the table's signature
    return _swapped(step, [*UNITS, *((after, before) for before, after in UNITS)])


def _wrong_premise(step: str, chance: random.Random) -> Change | None:  # noqa: ARG001 - the table's signature
    return _swapped(step, OPPOSITES)


def _swapped(step: str, pairs: Sequence[tuple[str, str]]) -> Change | None:
    for before, after in pairs:
        found = re.search(rf"\b{before}\b", step)
        if found:
            return (*found.span(), after)
    return None


_CHANGES: Mapping[ErrorKind, Callable[[str, random.Random], Change | None]] = {
    ErrorKind.ARITHMETIC: _wrong_result,
    ErrorKind.QUANTITY: _wrong_quantity,
    ErrorKind.UNIT: _wrong_unit,
    ErrorKind.PREMISE: _wrong_premise,
}
