"""Are percentages stated in words right?

Arithmetic reads `20% of 50 is 12`. This one reads the other ways to say it: what is what percent of what, more or less
by so many percent, and the change from one number to another.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from loop.checks.doubt import MOST_STEPS, Check, Doubt, Doubtful, excerpt
from loop.checks.expression import cleaned
from loop.config import ChecksConfig

WEIGHT = 0.7
MOST_DOUBTS = 10
NUMBER = r"[$€£¥]? ?([0-9]{1,3}(?:,[0-9]{3}){1,4}(?:\.[0-9]{1,6})?|[0-9]{1,9}(?:\.[0-9]{1,6})?)(?![0-9])(?![.,][0-9])"
PERCENT = r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(?:%|per ?cent)"
UNIT = r"(?: [a-z]{2,12})?"
IS = r" ?(?:=|is|are|equals|gives|makes|becomes) (?:about |approximately |only |exactly )?"
END = r"(?! ?[-+*/^(\u00d7\u00f7]| (?:more|less|of|times|percent|per|out|x)\b)"
UP = "increased|raised|grew|grows|rose|rises|marked up"
DOWN = "decreased|reduced|lowered|fell|falls|dropped|drops|discounted|marked down"
CHANGE = "(?:increase|rise|decrease|drop|fall|change|reduction)"
PATTERNS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(rf"(?<![0-9.,$/*+-])(?<![/*+-] )(?:\b|(?=\$)){pattern}{END}", re.IGNORECASE)
    for name, pattern in {
        "part": rf"{NUMBER}{UNIT}{IS}{PERCENT} of {NUMBER}",
        "share": rf"{NUMBER}{UNIT} out of (?:the )?{NUMBER}{UNIT}{IS}{PERCENT}",
        "up": rf"{NUMBER}{UNIT} (?:(?:is |was )?(?:{UP}) by|\+|plus) {PERCENT}{IS}{NUMBER}",
        "down": rf"{NUMBER}{UNIT} (?:(?:is |was )?(?:{DOWN}) by|-|minus|with a discount of) {PERCENT}{IS}{NUMBER}",
        "more": rf"{PERCENT} more than {NUMBER}{UNIT}{IS}{NUMBER}",
        "less": rf"{PERCENT} (?:less|fewer|lower) than {NUMBER}{UNIT}{IS}{NUMBER}",
        "off": rf"{PERCENT} off (?:of )?{NUMBER}{UNIT}{IS}{NUMBER}",
        "down_ja": rf"{NUMBER} ?円?の ?{PERCENT} ?(?:引き|引|オフ) ?(?:は|=) ?{NUMBER}",
        "up_ja": rf"{NUMBER} ?円?の ?{PERCENT} ?(?:増し|増) ?(?:は|=) ?{NUMBER}",
        "change": rf"from {NUMBER}{UNIT} to {NUMBER}{UNIT}(?:,| is| which is)?(?: an?)? {CHANGE} of {PERCENT}",
    }.items()
}
ROUNDED = Fraction(1, 100)
"""Share by which a value with decimals may be off."""


def wrong_percentages(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each percentage that is not what the numbers beside it make."""
    steps = doubtful.rationale.steps[:MOST_STEPS]
    found = [Doubt("percentages", at, evidence, WEIGHT) for at, step in enumerate(steps) for evidence in mistakes(step)]
    return found[:MOST_DOUBTS]


def mistakes(step: str) -> Iterator[str]:
    """Each wrong percentage of a step with its right value."""
    text = cleaned(step)
    if "%" not in text and "percent" not in text.casefold() and "per cent" not in text.casefold():
        return
    for name, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            numbers = [Fraction(each.replace(",", "")) for each in match.groups()]
            right = RIGHT[name](*numbers)
            if right and not any(_agree(stated, each, match) for stated, each in right):
                yield f"“{excerpt(match[0])}”: it is {_shown(right[0][1])}"


Pairs = list[tuple[Fraction, Fraction]]
"""What is stated and what it should be; any one pair that agrees is enough."""


def _part(part: Fraction, percent: Fraction, whole: Fraction) -> Pairs:
    return [(part, percent * whole / 100)]


def _share(part: Fraction, whole: Fraction, percent: Fraction) -> Pairs:
    return [(percent, 100 * part / whole)] if whole else []


def _up(whole: Fraction, percent: Fraction, result: Fraction) -> Pairs:
    return [(result, whole * (100 + percent) / 100), (result, whole * percent / 100)]


def _down(whole: Fraction, percent: Fraction, result: Fraction) -> Pairs:
    return [(result, whole * (100 - percent) / 100), (result, whole * percent / 100), (result, whole - percent)]


def _more(percent: Fraction, whole: Fraction, result: Fraction) -> Pairs:
    return _up(whole, percent, result)


def _less(percent: Fraction, whole: Fraction, result: Fraction) -> Pairs:
    return _down(whole, percent, result)


def _change(before: Fraction, after: Fraction, percent: Fraction) -> Pairs:
    return [(percent, 100 * abs(after - before) / before)] if before else []


RIGHT: Mapping[str, Callable[..., Pairs]] = {
    "part": _part,
    "share": _share,
    "up": _up,
    "down": _down,
    "more": _more,
    "less": _less,
    "off": _less,
    "down_ja": _down,
    "up_ja": _up,
    "change": _change,
}


def _agree(stated: Fraction, right: Fraction, match: re.Match[str]) -> bool:
    if right.denominator != 1 or "." in match[0] or "about" in match[0] or "approx" in match[0]:
        return abs(stated - right) <= max(ROUNDED * abs(right), Fraction(1, 2) if stated.denominator == 1 else 0)
    return stated == right


def _shown(value: Fraction) -> str:
    return f"{float(value):.4f}".rstrip("0").rstrip(".")


CHECK = Check("percentages", wrong_percentages, milliseconds=0.3)
