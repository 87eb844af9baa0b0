"""Does every number come from the item, an earlier step or a computation?"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from loop.answer import AnswerKind
from loop.checks.doubt import MOST_STEPS, Check, Doubt, Doubtful
from loop.checks.expression import NOTHING, Token, cleaned, tokens
from loop.checks.numbers import forms, spoken, written
from loop.checks.words import LEADING
from loop.config import ChecksConfig

WEIGHT = 0.4
MOST_DOUBTS = 10
MOST_KNOWN = 60
"""Known numbers whose pairs may give another."""
STRUCTURAL = frozenset(Fraction(number) for number in (0, 1, 2, 100))
"""Numbers that need no source: nothing, one, a pair, per cent."""
RESULT_LEADING = LEADING | {"-"}
"""What may stand between a relation and its result."""
ORDINALS = frozenset({"st", "nd", "rd", "th"})


def sourceless_quantities(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each number that neither the item, an earlier step nor a computation brings in.

    Only where the answer is a number: elsewhere it was measured to be wrong about as often as right.
    """
    if doubtful.task.answer is not AnswerKind.NUMBER:
        return []
    known = dict.fromkeys(sorted(written(doubtful.item.text)))
    found = [
        Doubt("quantities", number, f"“{token.text}” stands in neither the item nor an earlier step", WEIGHT)
        for number, step in enumerate(doubtful.rationale.steps[:MOST_STEPS])
        for token in _sourceless(step, known)
    ]
    return found[:MOST_DOUBTS]


def _sourceless(step: str, known: dict[Fraction, None]) -> Iterator[Token]:
    """Numbers of a step without a source; all its numbers are known from there on, so that each counts once."""
    found = tokens(cleaned(step))
    known.update(dict.fromkeys(sorted(spoken(step))))
    for at, token in enumerate(found):
        if token.kind == "number":
            if token.value not in known and token.value not in STRUCTURAL and not _is_explained(found, at, known):
                yield token
            known.update(dict.fromkeys(forms(token, _at(found, at + 1))))


def _is_explained(found: Sequence[Token], at: int, known: dict[Fraction, None]) -> bool:
    """Whether a new number is the result of an equation, an ordinal, or two known numbers make it in one step."""
    token, after = found[at], _at(found, at + 1)
    if after.text in ORDINALS and after.start == token.end:
        return True
    before = at - 1
    while _at(found, before).kind in ("money", "open") or _at(found, before).text in RESULT_LEADING:
        before -= 1
    if _at(found, before).kind == "relation":
        return True
    near = list(known)[:MOST_KNOWN]
    if token.decimals and any(abs(each - token.value) * 10**token.decimals < 1 for each in near):
        return True
    return not (_is_operand(found, at) and _is_first_side(found, at)) and _follows(token.value, near)


def _is_first_side(found: Sequence[Token], at: int) -> bool:
    """Whether no relation stands before a number in its clause."""
    while _at(found, at).kind not in ("stop", "relation"):
        at -= 1
    return _at(found, at).kind == "stop"


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
        or value / each in pool
        or value * each in pool
        or each / value in pool
        for each in known
        if each
    )


def _at(found: Sequence[Token], index: int) -> Token:
    return found[index] if 0 <= index < len(found) else NOTHING


CHECK = Check("quantities", sourceless_quantities, milliseconds=1.0)
