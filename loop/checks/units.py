"""Do quantities with units stay equal when their units change, and are only like ones added?

Arithmetic looks at bare numbers and leaves every equation alone that mixes units of a kind. Here each number is taken
with its unit, in exact fractions through `pint`, which never sees the text: only names of its own from `UNITS`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import pint

from loop.checks.doubt import MOST_STEPS, Check, Doubt, Doubtful, excerpt
from loop.checks.expression import NOTHING, Token, cleaned, tokens
from loop.checks.words import ABOUT, COMPARED, LEADING, SHADOWS, UNITS
from loop.config import ChecksConfig

WEIGHT = 0.8
MOST_DOUBTS = 10
MOST_TOKENS = 24
"""Of one side of an equation."""
DEEPEST = 8
LARGEST = 10**15
RELATIONS = frozenset({"=", "≈", "is", "are"})
ONES = frozenset({"a", "an", "one", "each", "every", "1"})
SCALES = ("scale", "represent", " map")
"""Words of an item in which an inch may stand for a mile."""
POWERS = {"square": 2, "cubic": 3, "sq": 2}
ROUNDING = Fraction(1, 100)
OTHER_SYSTEM = Fraction(6, 100)
"""Between metric and other units everybody rounds: a cup is 250 ml."""
CALENDAR = Fraction(10, 100)
"""A month has 4 weeks or 30 days, a year 52 weeks or 360 days, as it suits."""
METRIC = frozenset({"mm", "cm", "m", "km", "mg", "g", "kg", "ml", "dl", "l", "tonne"})
FEW = 10
"""From so many units on, whole ones may be what was left after rounding."""
WORKED = frozenset({("day", "week"), ("hour", "day"), ("hour", "week")})
"""Of which somebody may work fewer than there are."""
MONTHS = frozenset({"month", "year", "decade", "century"})


@dataclass(frozen=True)
class Measured:
    """A side of an equation: its value with units, as a bare number, and how it is made."""

    end: int
    value: pint.Quantity[Fraction]
    bare: Fraction
    """The value where all units are left out."""
    units: frozenset[str]
    operands: int
    unitless: int
    """Operands without a unit."""
    decimals: int


class Unlike(ValueError):
    """Quantities of different kinds are added, up to the token `end`."""

    def __init__(self, end: int) -> None:
        super().__init__("quantities of different kinds are added")
        self.end = end


def wrong_units(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each equation that fails once units count, and for each sum of unlike quantities."""
    if any(word in doubtful.item.text.casefold() for word in SCALES):
        return []
    steps = doubtful.rationale.steps[:MOST_STEPS]
    found = [Doubt("units", at, evidence, WEIGHT) for at, step in enumerate(steps) for evidence in mistakes(step)]
    return found[:MOST_DOUBTS]


def mistakes(step: str) -> list[str]:
    """Each failing conversion or unlike sum of a step, in words."""
    text = cleaned(step)
    found = tokens(text)
    if not any(token.kind == "number" and _unit(found, at + 1)[0] for at, token in enumerate(found)):
        return []
    return [
        f"“{excerpt(text[found[start].start : found[end - 1].end])}”: {said}"
        for start, end, said in (*_equations(found), *_statements(found))
    ]


Mistake = tuple[int, int, str]
"""From which to which token, and what is wrong."""


def _equations(found: Sequence[Token]) -> Iterator[Mistake]:
    for at, token in enumerate(found):
        if token.text in RELATIONS:
            start = at + 1
            while _at(found, start).text in LEADING:
                start += 1
            right = _side(found, start)
            lefts = (
                (place, side)
                for place in range(max(0, at - MOST_TOKENS), at)
                if _begins(found, place) and (side := _side(found, place, at)) is not None and side.end == at
            )
            left = next(lefts, None)
            if left is None or right is None:
                continue
            if isinstance(left[1], Unlike):
                yield left[0], at, str(left[1])
            elif not isinstance(right, Unlike) and not _shadowed(found, left[0], right.end):
                yield from _compared(found, left[0], left[1], right)


def _compared(
    found: Sequence[Token], start: int, left: Measured, right: Measured, *, at_most: bool = False
) -> Iterator[Mistake]:
    """The equation, where both sides have units of the same kind, which differ, and the values differ."""
    units = left.units | right.units
    if not left.units or not right.units or len(units) < 2 or left.value.dimensionality != right.value.dimensionality:
        return
    excused = left.unitless + right.unitless > 0 and _close(left.bare, right.bare, right.decimals)
    about = any(token.text in ABOUT for token in found[left.end : right.end + 3])
    if excused or _agrees(left, right, about=about) or (at_most and left.value < right.value):
        return
    if right.operands == 1:
        yield start, right.end, f"the left side is {_shown(left.value.to(right.value.units).magnitude)} in these units"
    elif left.operands == 1:
        yield start, right.end, f"the right side is {_shown(right.value.to(left.value.units).magnitude)} in these units"


def _agrees(left: Measured, right: Measured, *, about: bool) -> bool:
    """Whether the values are equal as far as units and digits go."""
    one, other = left.value.to(right.value.units).magnitude, right.value.magnitude
    units = left.units | right.units
    tolerance = Fraction(1, 10) if about else Fraction(0)
    if units & MONTHS and units - MONTHS:
        tolerance = max(tolerance, CALENDAR)
    if units & METRIC and units - METRIC:
        tolerance = max(tolerance, OTHER_SYSTEM)
    if max(left.decimals, right.decimals):
        tolerance = max(tolerance, ROUNDING)
    whole = right.operands == 1 and other.denominator == 1 < one.denominator and abs(other) >= FEW
    return abs(one - other) <= tolerance * max(abs(one), abs(other)) or (whole and abs(one - other) < 1)


def _close(one: Fraction, other: Fraction, decimals: int) -> bool:
    return abs(one - other) <= (ROUNDING * max(abs(one), abs(other)) if decimals else 0)


def _statements(found: Sequence[Token]) -> Iterator[Mistake]:
    """Conversions in words, as in `there are 60 minutes in an hour`."""
    for at, token in enumerate(found):
        if token.kind != "number" or not {"are", "has", "have", "is", "contains"} & {
            each.text for each in found[max(0, at - 2) : at]
        }:
            continue
        part, end = _unit(found, at + 1)
        whole, last = _unit(found, end + 2)
        if part and whole and part != whole and _at(found, end).text == "in" and _at(found, end + 1).text in ONES:
            one, other = _alone(token, part, end), _alone(NOTHING._replace(value=Fraction(1)), whole, last)
            for start, stop, _ in _compared(found, at, one, other, at_most=(part, whole) in WORKED):
                yield start, stop, f"it is {_shown(other.value.to(one.value.units).magnitude)}"


def _alone(token: Token, unit: str, end: int) -> Measured:
    """One number with its unit."""
    return Measured(end, _quantity(token.value, unit), token.value, frozenset({unit}), 1, 0, token.decimals)


def _side(found: Sequence[Token], start: int, end: int | None = None) -> "Measured | Unlike | None":
    """The expression from a token on; None where there is none that can be read."""
    try:
        side = _Reader(found, start, min(len(found), start + MOST_TOKENS) if end is None else end).side()
    except Unlike as unlike:
        return unlike
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return None if end is None and _goes_on(found, side.end) else side


def _goes_on(found: Sequence[Token], end: int) -> bool:
    """Whether what follows an expression still changes its value."""
    after = _at(found, end)
    return after.kind in ("other", "open", "operator", "percent") or after.text in COMPARED | {
        "of",
        "per",
        "a",
        "an",
        "each",
        "every",
    }


def _begins(found: Sequence[Token], at: int) -> bool:
    before = _at(found, at - 1)
    if found[at].kind not in ("number", "open", "money"):
        return False
    return before.kind not in ("other", "operator", "percent", "money", "number") and before.text not in ("of", "per")


def _shadowed(found: Sequence[Token], start: int, end: int) -> bool:
    return any(token.text in SHADOWS for token in found[max(0, start - 3) : end + 2])


class _Reader:
    """Reads sums of products of numbers with units."""

    def __init__(self, found: Sequence[Token], start: int, end: int) -> None:
        self._found, self._at, self._end = found, start, end
        self._units: set[str] = set()
        self._operands = self._unitless = self._decimals = self._depth = self._nests = 0
        self._additive = True

    def side(self) -> Measured:
        value, bare = self._sum()
        return Measured(
            self._at,
            value,
            bare,
            frozenset(self._units),
            self._operands,
            self._unitless,
            self._decimals,
        )

    def _peek(self) -> Token:
        return self._found[self._at] if self._at < self._end else NOTHING

    def _sum(self) -> tuple["pint.Quantity[Fraction]", Fraction]:
        value, bare = self._product()
        while self._peek().text in ("+", "-"):
            sign = 1 if self._peek().text == "+" else -1
            self._at += 1
            term, other = self._product()
            if value.dimensionality != term.dimensionality:
                self._unlike()
            value, bare = value + sign * term, bare + sign * other
        return value, bare

    def _unlike(self) -> None:
        """Stop: a sum of unlike quantities, or one whose numbers do not all have units."""
        if self._unitless or not self._additive or self._nests or self._peek().text in ("*", "/"):
            raise ValueError("units are left out")
        raise Unlike(self._at)

    def _product(self) -> tuple["pint.Quantity[Fraction]", Fraction]:
        value, bare = self._operand()
        while self._peek().text in ("*", "/"):
            times = self._peek().text == "*"
            self._at += 1
            self._additive = False
            factor, other = self._operand()
            value, bare = (value * factor, bare * other) if times else (value / factor, bare / other)
        return value, bare

    def _operand(self) -> tuple["pint.Quantity[Fraction]", Fraction]:
        self._operands += 1
        if self._peek().kind == "open":
            return self._nested()
        dollars = self._peek().text == "$"
        self._at += dollars
        token = self._peek()
        if token.kind != "number" or token.value > LARGEST:
            raise ValueError("no operand")
        self._at += 1
        self._decimals = max(self._decimals, token.decimals)
        unit, end = ("dollar", self._at) if dollars else _unit(self._found, self._at)
        if dollars:
            end += self._peek().text in ("dollar", "dollars")
        self._at = min(end, self._end)
        if not unit:
            self._unitless += 1
            self._skip_words()
            return _quantity(token.value, ""), token.value
        self._units.add(unit)
        return _quantity(token.value, unit), token.value

    def _nested(self) -> tuple["pint.Quantity[Fraction]", Fraction]:
        self._at += 1
        self._depth += 1
        self._nests += 1
        if self._depth > DEEPEST:
            raise ValueError("nested too deeply")
        found = self._sum()
        if self._peek().kind != "close":
            raise ValueError("not closed")
        self._at += 1
        self._depth -= 1
        return found

    def _skip_words(self) -> None:
        """Past up to two words that are no units, as in `3 full boxes`."""
        for _ in range(2):
            self._at += self._peek().kind == "word" and self._peek().text not in ("is", "are", "of", "and")


def _unit(found: Sequence[Token], at: int) -> tuple[str, int]:
    """The unit that begins at a token, empty where none does, and the token behind it."""
    name, at = _named(found, at)
    below, end = _named(found, at + 1)
    if name and below and _at(found, at).text in ("/", "per", "a", "an"):
        return f"{name}/({below})", end
    return name, at


def _named(found: Sequence[Token], at: int) -> tuple[str, int]:
    """One unit with its power."""
    power = POWERS.get(_at(found, at).text, 1)
    at += power > 1
    token = _at(found, at)
    name = UNITS.get(token.text, "") if token.kind in ("word", "money") else ""
    if not name:
        return "", at
    if _at(found, at + 1).text == "^" and _at(found, at + 2).text in ("2", "3"):
        return f"{name}**{_at(found, at + 2).text}", at + 3
    return (f"{name}**{power}" if power > 1 else name), at + 1


def _quantity(value: Fraction, unit: str) -> "pint.Quantity[Fraction]":
    return _registry().Quantity(value, _registry().parse_units(unit))


@cache
def _registry() -> "pint.UnitRegistry[Fraction]":
    """Made when first needed: it takes a fifth of a second."""
    registry: pint.UnitRegistry[Fraction] = pint.UnitRegistry(non_int_type=Fraction)
    for line in ("dollar = [money]", "coin_cent = dollar / 100", "nickel = 5 * coin_cent", "dime = 10 * coin_cent"):
        registry.define(line)
    return registry


def _shown(value: Fraction) -> str:
    if value.denominator == 1 and abs(value) < LARGEST:
        return str(value.numerator)
    return f"{float(value):.4g}"


def _at(found: Sequence[Token], index: int) -> Token:
    return found[index] if 0 <= index < len(found) else NOTHING


CHECK = Check("units", wrong_units, milliseconds=1.0)
