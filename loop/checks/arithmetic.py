"""Is every equation in the steps right?"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from loop.checks.doubt import MOST_STEPS, Check, Doubt, Doubtful, excerpt
from loop.checks.expression import NOTHING, Reading, Token, Unreadable, cleaned, is_japanese, read, tokens
from loop.checks.words import ABOUT, CLAUSES, COMPARED, FAMILIES, LEADING, SHADOWS
from loop.config import ChecksConfig

WEIGHT = 0.85
MOST_DOUBTS = 10
MOST_STARTS = 40
"""Tokens before a relation at which the left side may begin."""
RELATIONS = frozenset({"=", "≈", "is", "gives", "makes"})
MEASURES = frozenset().union(*FAMILIES.values())
"""Units that may stick to a number, as in `5km`."""
MOST_LEADING = 3
"""Words that may stand between a relation and the right side."""


def wrong_equations(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each equation whose sides differ, beyond the rounding that its digits state."""
    found = [
        Doubt("arithmetic", number, evidence, WEIGHT)
        for number, step in enumerate(doubtful.rationale.steps[:MOST_STEPS])
        for evidence in mistakes(step)
    ]
    return found[:MOST_DOUBTS]


def mistakes(step: str) -> list[str]:
    """Each wrong equation of a step with its right value."""
    text = cleaned(step)
    found = tokens(text)
    return [
        f"“{excerpt(text[found[left.start].start : found[right.end - 1].end])}”: {_said(left, right)}"
        for left, right in equations(found)
        if not _holds(found, left, right) and not _is_shadowed(found, left, right)
    ]


def equations(found: Sequence[Token]) -> Iterator[tuple[Reading, Reading]]:
    """The sides of each relation between two expressions of which at least one computes something."""
    for at, token in enumerate(found):
        if token.text not in RELATIONS or token.kind not in ("relation", "word"):
            continue
        right = _right_side(found, at + 1)
        left = None if right is None else _left_side(found, at)
        if left is None or right is None or left.operators + right.operators == 0:
            continue
        if token.kind == "relation" or _is_plain(found, left, right):
            yield left, right


def _is_plain(found: Sequence[Token], left: Reading, right: Reading) -> bool:
    """Whether a word such as `is` equates the sides: a computation and then a number."""
    return left.operators > 0 and not right.operators and left.value > 0 and not _is_fraction(found, left)


def _right_side(found: Sequence[Token], start: int) -> Reading | None:
    """The expression after a relation, unless it goes on in a way that cannot be read."""
    for _ in range(MOST_LEADING):
        start += _at(found, start).text in LEADING
    try:
        side = read(found, start)
    except Unreadable:
        return None
    return None if _goes_on(found, side) else side


def _goes_on(found: Sequence[Token], side: Reading) -> bool:
    """Whether something beside the expression still changes its value."""
    after, last = _at(found, side.end), found[side.end - 1]
    if after.kind in ("other", "open") or (after.kind == "word" and after.start == last.end):
        return True
    if any(token.text in COMPARED for token in found[side.end - 2 : side.end + 1] if token.kind == "word"):
        return True
    pause = after.text == "-" and after.start > last.end and _at(found, side.end + 1).start > after.end
    return after.kind == "operator" and not pause


def _left_side(found: Sequence[Token], end: int) -> Reading | None:
    """The longest expression that ends right before a relation; a bare number only where it begins the clause."""
    for start in range(max(_segment(found, end), end - MOST_STARTS), end):
        before = _at(found, start - 1)
        begins = before.kind in ("stop", "relation") or before.text in CLAUSES
        if not (_may_begin(before, found[start]) or (begins and _is_signed(found, start))):
            continue
        try:
            side = read(found, start)
        except Unreadable:
            continue
        if side.end == end:
            return side if side.operators or begins else None
    return None


def _may_begin(before: Token, start: Token) -> bool:
    """Whether an expression can begin here: nothing that stands before belongs to it."""
    if start.kind not in ("number", "open", "money"):
        return False
    if before.kind == "word":
        return before.end < start.start and (len(before.text) > 1 or before.text == "a" or is_japanese(before.text))
    return before.kind not in ("other", "operator", "percent", "money")


def _is_signed(found: Sequence[Token], start: int) -> bool:
    """Whether a minus sticks to its number; one that stands apart goes on from a line before."""
    return found[start].text == "-" and _at(found, start + 1).start == found[start].end


def _segment(found: Sequence[Token], end: int) -> int:
    """The first token of the clause that a relation ends."""
    start = end
    while start > 0 and found[start - 1].kind not in ("stop", "relation"):
        start -= 1
    return start


def _holds(found: Sequence[Token], left: Reading, right: Reading) -> bool:
    """Whether both sides agree, with a percent sign read as hundredths or as a mere unit."""
    about = _is_about(found, left, right)
    lefts, rights = ([side, read(found, side.start, Fraction(1))] for side in (left, right))
    return any(_agree(one, other, about) for one in lefts for other in rights)


def _agree(left: Reading, right: Reading, about: bool) -> bool:
    """Whether the values are equal, or one is the other as far as its digits state it."""
    if left.value == right.value or (right.operators and right.first == left.value):
        return True
    off = abs(left.value - right.value)
    size = max(abs(left.value), abs(right.value))
    if about and off * 10 <= size:
        return True
    if _states(left, right) or _states(right, left):
        return True
    return max(left.decimals, right.decimals) >= 2 and off * 500 <= size


def _states(stated: Reading, computed: Reading) -> bool:
    """Whether a number is a value rounded or cut off to its digits, or a whole one that rounded operands missed."""
    off = abs(stated.value - computed.value)
    if stated.operators or computed.value.denominator == 1:
        return False
    if not stated.decimals:
        return off <= computed.slack * abs(computed.value)
    unit = Fraction(1, 10**stated.decimals)
    return 2 * off <= unit or stated.value == int(computed.value / unit) * unit


def _is_about(found: Sequence[Token], left: Reading, right: Reading) -> bool:
    """Whether the equation says that it is rounded."""
    return any(token.text in ABOUT for token in found[left.end : right.end + 4])


def _is_shadowed(found: Sequence[Token], left: Reading, right: Reading) -> bool:
    """Whether words or units beside the signs may explain the difference."""
    around = found[max(0, left.start - 3) : right.end + 2]
    units = {token.text.removesuffix("s") for token in around}
    percents = sum(token.kind == "percent" for token in around)
    numbers = sum(token.kind == "number" for token in around)
    added = any(token.text in ("+", "-") for token in found[left.start : right.end])
    return (
        any(len(units & family) > 1 for family in FAMILIES.values())
        or (0 < percents < numbers and added)
        or any(token.text in SHADOWS for token in around)
        or (_is_fraction(found, left) and not 0 < right.value < 1)
        or _is_ambiguous(found[left.start : right.end])
    )


def _is_ambiguous(sides: Sequence[Token]) -> bool:
    """Whether a word sticks to a number (`2ab`), a fraction divides (`7 / 1/2`) or is mixed in (`1((9)/(10))`)."""
    for before, token, after in zip(sides, sides[1:], [*sides[2:], NOTHING], strict=False):
        if token.kind == "word" and before.kind == "number" and before.end == token.start:
            return token.text not in MEASURES
        if token.kind == "number" and before.text == "/" and after.text == "/":
            return True
        if before.kind == "number" and token.kind == after.kind == "open":
            return True
    return False


def _is_fraction(found: Sequence[Token], side: Reading) -> bool:
    """Whether a side is a share such as 1/3, which may stand for what it is a share of."""
    return side.operators == 1 and 0 < side.value < 1 and any(each.text == "/" for each in found[side.start : side.end])


def _said(left: Reading, right: Reading) -> str:
    """What the computed side is really worth."""
    side, value = ("left", left.value) if left.operators else ("right", right.value)
    return f"the {side} side is {_shown(value)}"


def _shown(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator) if abs(value) < 10**15 else f"{float(value):.4g}"
    return f"{float(value):.4f}".rstrip("0").rstrip(".")


def _at(found: Sequence[Token], index: int) -> Token:
    return found[index] if 0 <= index < len(found) else NOTHING


CHECK = Check("arithmetic", wrong_equations, milliseconds=1.0)
