"""Numbers in a text: as digits, and as the words that stand for them."""

import re
from fractions import Fraction
from itertools import chain, pairwise

from loop.checks.expression import NOTHING, Token, cleaned, tokens
from loop.checks.words import values

LONGEST_TEXT = 20_000
"""Characters of an item that are read."""
PIECE = 4_000
"""Characters read at once."""
COMPOUND = re.compile(r"\b(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)[ -]([a-z]+)\b")
WORD = re.compile(r"[a-z]+")
PORTION = re.compile(r"\b([a-z]+)[ -](halves|thirds|quarters|[a-z]{3,5}ths)\b")


def numerals(text: str) -> list[Token]:
    """The numbers that a step writes in digits, with a percent sign left aside."""
    return [token for token in tokens(cleaned(text)) if token.kind == "number"]


def written(text: str) -> set[Fraction]:
    """All numbers that an item may mean, in digits and in words; `half` is 1/2, 2 and 50 at once."""
    found = spoken(text)
    for start in range(0, min(len(text), LONGEST_TEXT), PIECE):
        for token, following in pairwise(chain(tokens(text[start : start + PIECE]), [NOTHING])):
            if token.kind == "number":
                found.update(forms(token, following))
    return found


def forms(token: Token, following: Token) -> tuple[Fraction, ...]:
    """A number as it may be used further on: 25 % also as 1/4, 3/4, 5/4, 75 and 125."""
    if following.kind != "percent":
        return (token.value,)
    share = token.value / 100
    return (token.value, share, 1 - share, 1 + share, 100 - token.value, 100 + token.value)


def spoken(text: str) -> set[Fraction]:
    """Numbers that the words of a text may stand for."""
    folded = text[:LONGEST_TEXT].casefold()
    found = {value for word in set(WORD.findall(folded)) for value in values(word)}
    for tens, ones in COMPOUND.findall(folded):
        found.update(values(tens)[0] + value for value in values(ones)[:1] if 0 < value < 10)
    for count, part in PORTION.findall(folded):
        found.update(a * b for a in values(count)[:1] for b in values(part) if b < 1)
    return found
