"""Does every number come from the item, an earlier step or a computation?"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from loop.answer import AnswerKind
from loop.checks.doubt import Doubt, Doubtful
from loop.checks.expression import NOTHING, Token, cleaned, tokens
from loop.checks.numbers import forms, spoken, written
from loop.checks.words import LEADING
from loop.config import ChecksConfig

WEIGHT = 0.25
KINDS = frozenset({AnswerKind.NUMBER, AnswerKind.CHOICE})
MOST_DOUBTS = 10
MOST_KNOWN = 60
"""Known numbers whose pairs may give another."""
STRUCTURAL = (Fraction(0), Fraction(1), Fraction(2), Fraction(100))
"""Numbers that need no source: nothing, one, a pair, per cent."""
ORDINALS = frozenset({"st", "nd", "rd", "th"})


def sourceless_quantities(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each number that neither the item, an earlier step nor a computation brings in.

    Only where answers are numbers or choices: explanations of labels seldom compute.
    """
    if doubtful.task.answer not in KINDS:
        return []
    known = dict.fromkeys([*STRUCTURAL, *sorted(written(doubtful.item.text))])
    found = [
        Doubt("quantities", number, f"“{token.text}” stands in neither the item nor an earlier step", WEIGHT)
        for number, step in enumerate(doubtful.rationale.steps)
        for token in _sourceless(step, known)
    ]
    return found[:MOST_DOUBTS]


def _sourceless(step: str, known: dict[Fraction, None]) -> Iterator[Token]:
    """Numbers of a step without a source; all its numbers are known from there on, so that each counts once."""
    found = tokens(cleaned(step))
    known.update(dict.fromkeys(sorted(spoken(step))))
    for at, token in enumerate(found):
        if token.kind == "number":
            if token.value not in known and not _is_explained(found, at, known):
                yield token
            known.update(dict.fromkeys(forms(token, _at(found, at + 1))))


def _is_explained(found: Sequence[Token], at: int, known: dict[Fraction, None]) -> bool:
    """Whether a new number is the result of an equation, an ordinal, or two known numbers make it in one step."""
    token, after = found[at], _at(found, at + 1)
    if after.text in ORDINALS and after.start == token.end:
        return True
    before = at - 1
    while _at(found, before).kind == "money" or _at(found, before).text in LEADING - {"of"}:
        before -= 1
    if _at(found, before).kind == "relation":
        return True
    return not _is_operand(found, at) and _follows(token.value, list(known)[:MOST_KNOWN])


def _is_operand(found: Sequence[Token], at: int) -> bool:
    """Whether a sign stands on either side."""
    before = at - 1 - (_at(found, at - 1).kind == "money")
    after = at + 1 + (_at(found, at + 1).kind == "percent")
    return "operator" in (_at(found, before).kind, _at(found, after).kind)


def _follows(value: Fraction, known: Sequence[Fraction]) -> bool:
    """Whether one operation on two known numbers gives the value."""
    pool = set(known)
    return any(
        value - each in pool
        or value + each in pool
        or (each and (value / each in pool or value * each in pool))
        or (value and each / value in pool)
        for each in known
    )


def _at(found: Sequence[Token], index: int) -> Token:
    return found[index] if 0 <= index < len(found) else NOTHING
