"""Numbers in a text: as digits, and as the words that stand for them."""

import re
from contextlib import suppress
from fractions import Fraction

from loop.checks.expression import NOTHING, Token, Unreadable, cleaned, read, tokens
from loop.checks.words import JAPANESE_WORDS, values
from loop.plain import plain

LONGEST_TEXT = 20_000
"""Characters of an item that are read."""
PIECE = 4_000
"""Characters read at once."""
MOST_STARTS = 200
CLOCK = re.compile(r"[0-9]{1,9}(?=:)|(?<=:)[0-9]{1,9}")
COMPOUND = re.compile(r"\b(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)[ -]([a-z]+)\b")
WORD = re.compile(r"[a-z]+")
PORTION = re.compile(r"\b([a-z]+)[ -](halves|thirds|quarters|[a-z]{3,5}ths)\b")


def numerals(text: str) -> list[Token]:
    """The numbers that a step writes in digits, with a percent sign left aside."""
    return [token for token in tokens(cleaned(text)) if token.kind == "number"]


def written(text: str) -> set[Fraction]:
    """All numbers that an item may mean, in digits and in words; `half` is 1/2, 2 and 50 at once."""
    text = plain(text[:LONGEST_TEXT])[:LONGEST_TEXT]
    found = spoken(text)
    for start in range(0, len(text), PIECE):
        pieces = [NOTHING, *tokens(text[start : start + PIECE]), NOTHING]
        for before, token, after in zip(pieces, pieces[1:], pieces[2:], strict=False):
            if token.kind == "number":
                found.update(forms(token, after))
            elif token.kind == "other":
                found.update(Fraction(number) for number in CLOCK.findall(token.text))
            elif token.text == "/" and before.value and after.value:
                found.update((before.value / after.value, 1 - before.value / after.value))
    return found


def results(step: str) -> set[Fraction]:
    """The values of all expressions in a step, single numbers included."""
    found = tokens(cleaned(step))
    values = set()
    for start, token in enumerate(found[:MOST_STARTS]):
        if token.kind in ("number", "open") or token.text == "-":
            with suppress(Unreadable):
                values.add(read(found, start).value)
    return values


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
    if not folded.isascii():
        found.update(value for word in JAPANESE_WORDS if word in folded for value in values(word))
    for tens, ones in COMPOUND.findall(folded):
        found.update(values(tens)[0] + value for value in values(ones)[:1] if 0 < value < 10)
    for count, part in PORTION.findall(folded):
        found.update(a * b for a in values(count)[:1] for b in values(part) if b < 1)
    return found
