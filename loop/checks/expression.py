"""Reads arithmetic in untrusted prose: a tokenizer and a bounded recursive reader in exact fractions, never `eval`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from loop.checks.words import CLAUSES, DETERMINERS, FAMILIES, UNIT_LETTERS
from loop.plain import JAPANESE, plain

LONGEST_TEXT = 4_000
"""Characters of one step that are read."""
LONGEST_NUMBER = 18
"""Characters of a number that is read."""
DEEPEST = 20
"""Nested parentheses and signs that are followed."""
LARGEST_EXPONENT = 20
MOST_BITS = 256
"""Size of a value, and of a base that may still be raised to a power."""
MOST_UNIT_WORDS = 4
"""Words between an operand and the next operator, as in `3 bags of flour * 2`."""


def is_japanese(word: str) -> bool:
    """Whether a word is written in kana or Chinese characters, so that a single one of them is no variable."""
    return re.match(f"[{JAPANESE}]", word) is not None


JAPANESE_UNITS = sorted((unit for family in FAMILIES.values() for unit in family if is_japanese(unit)), key=len)[::-1]
CLEANING = (
    (re.compile(r"<<[^<>\n]{0,80}>>"), ""),
    (re.compile(r"\\d?frac\s{0,2}\{([^{}]{1,40})\}\s{0,2}\{([^{}]{1,40})\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:text|boxed)\s{0,2}\{([^{}]{0,60})\}"), r" \1 "),
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"\\div\b"), "/"),
    (re.compile(r"\\(?:left|right|quad|[,;!()\[\]])"), " "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"(?<!\S)\*\*(?=[$0-9(])|(?<=[0-9%)A-Za-z])\*\*(?=[\s.,;:)]|$)"), ""),
    (re.compile(r"^\s{0,9}[-*•]\s+"), ""),
    (re.compile(r"\b(?:is\s)?equal(?:s|\sto)\b", re.IGNORECASE), "="),
    (re.compile(r"\bmultiplied\sby\b", re.IGNORECASE), "*"),
    (re.compile(r"\bdivided\sby\b", re.IGNORECASE), "/"),
    (re.compile(r"\bplus\b(?=\s?[$0-9(])", re.IGNORECASE), "+"),
    (re.compile(r"\bminus\b(?=\s?[$0-9(])", re.IGNORECASE), "-"),
    (re.compile(r"\btimes\b(?=\s?[$0-9(])", re.IGNORECASE), "*"),
    (re.compile(rf"(?<=[0-9]) ?({'|'.join(JAPANESE_UNITS)})"), r" \1 "),
    (
        re.compile(r"([0-9.]{1,18}) ?(\D{0,4}?) ?(?:に|と) ?([0-9.]{1,18}) ?(\D{0,4}?) ?を(?:足す|加える|たす)と"),
        r"\1 \2 + \3 \4 =",
    ),
    (
        re.compile(r"([0-9.]{1,18}) ?(\D{0,4}?) ?から ?([0-9.]{1,18}) ?(\D{0,4}?) ?を(?:引く|ひく)と"),
        r"\1 \2 - \3 \4 =",
    ),
    (re.compile(r"([0-9.]{1,18}) ?(\D{0,4}?) ?に ?([0-9.]{1,18}) ?を(?:掛ける|かける)と"), r"\1 \2 * \3 ="),
    (re.compile(r"([0-9.]{1,18}) ?(\D{0,4}?) ?を ?([0-9.]{1,18}) ?で(?:割る|わる)と"), r"\1 \2 / \3 ="),
    (re.compile(r"([0-9.,]{1,18}) ?(\D{0,4}?) ?の ?([0-9.]{1,18} ?%) ?は"), r"\3 of \1 \2 ="),
    (re.compile(r"(?<=[0-9)%])(\s?)[xX](?=\s?[$0-9(.])|(?<=[A-Za-z])(\s)[xX](?=\s[$0-9(.])"), r"\1\2*"),
)
"""Calculator marks, LaTeX, bold and bullets are taken away; words that stand for signs become signs."""
PIECE = re.compile(
    r"""
    (?P<other>[0-9]+:[0-9]+|[<>!~:]=|==|=>|\.\.\.)
    |(?P<number>[0-9]{1,6}[ ][0-9]{1,4}/[0-9]{1,4}(?![0-9/.]) | [0-9]{1,3}(?:[, ][0-9]{3})+(?:\.[0-9]+)?(?![0-9])
        | [0-9]+(?:\.[0-9]+)? | (?<![0-9])\.[0-9]+)
    |(?P<word>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*)
    |(?P<relation>[=≈])
    |(?P<operator>\*\*|[-+*/^\u00d7\u00b7\u00f7\u2212\u2013\u22c5])
    |(?P<open>[(\[])|(?P<close>[)\]])
    |(?P<percent>%)|(?P<money>[$€£¢])
    |(?P<space>[^\S\n]+)
    |(?P<stop>[.,;:!?\n。、「」『』・]+)
    """,
    re.VERBOSE,
)
SIGNS = {"\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-", "**": "^"}
"""Times, dots, division sign, minus sign and dash as the keyboard writes them."""


class Unreadable(ValueError):
    """The tokens are no expression, or one past the limits."""


class Token(NamedTuple):
    """One piece of a text; `value` and `decimals` for numbers."""

    kind: str
    text: str
    start: int
    end: int
    value: Fraction = Fraction(0)
    decimals: int = 0


NOTHING = Token("stop", "", -1, -1)


@dataclass(frozen=True)
class Reading:
    """The expression in tokens `start` to `end`: its value, that of its first operand, and how it is made."""

    start: int
    end: int
    value: Fraction
    first: Fraction
    operators: int
    decimals: int
    """Most decimals of an operand."""
    slack: Fraction
    """What the operands with two or more decimals may have lost by rounding, as a share."""


def cleaned(text: str) -> str:
    """The text as it is read: signs for words, nothing that only decorates."""
    text = plain(text[:LONGEST_TEXT])[:LONGEST_TEXT]
    for pattern, replacement in CLEANING:
        text = pattern.sub(replacement, text)
    return text


def tokens(text: str) -> list[Token]:
    """The pieces of a text without blanks; what is none is of the kind `other`."""
    found: list[Token] = []
    position = 0
    while position < len(text):
        match = PIECE.match(text, position)
        token = Token("other", text[position], position, position + 1) if match is None else _token(match)
        position = token.end
        if token.kind != "space":
            found.append(token)
    return found


def read(found: Sequence[Token], start: int, percent: Fraction = Fraction(1, 100)) -> Reading:
    """The longest expression from a token on; `percent` is the worth of a percent sign that no `of` follows.

    Raises:
        Unreadable: there is none, or it is past the limits.
    """
    return _Reader(found, start, percent).reading()


def _token(match: re.Match[str]) -> Token:
    kind, text = match.lastgroup or "other", match[0]
    if kind == "number":
        return _number(match)
    if kind == "word":
        return Token(kind, text.casefold(), match.start(), match.end())
    return Token(kind, SIGNS.get(text, text), match.start(), match.end())


def _number(match: re.Match[str]) -> Token:
    plain = match[0].replace(",", "")
    whole, _, part = plain.rpartition(" ") if "/" in plain else ("", "", plain.replace(" ", ""))
    numerator, _, denominator = part.partition("/")
    if len(plain) > LONGEST_NUMBER or (denominator and not int(denominator)):
        return Token("other", match[0], match.start(), match.end())
    value = Fraction(f"0{numerator}") / int(denominator or 1) + int(whole or 0)
    return Token("number", match[0], match.start(), match.end(), value, len(plain.partition(".")[2]))


class _Reader:
    """Reads sums of products of powers from left to right, counting what it reads."""

    def __init__(self, found: Sequence[Token], start: int, percent: Fraction) -> None:
        self._found = found
        self._percent = percent
        self._start = self._at = start
        self._depth = 0
        self._operators = 0
        self._decimals = 0
        self._slack = Fraction(0)
        self._first: Fraction | None = None
        self._share = False
        """Whether the last operand may be followed by `of`."""

    def reading(self) -> Reading:
        value = self._sum()
        if self._first is None or max(abs(value.numerator), value.denominator).bit_length() > MOST_BITS:
            raise Unreadable("a value past the limits")
        return Reading(self._start, self._at, value, self._first, self._operators, self._decimals, self._slack)

    def _peek(self, ahead: int = 0) -> Token:
        index = self._at + ahead
        return self._found[index] if index < len(self._found) else NOTHING

    def _sum(self) -> Fraction:
        value = self._product()
        while self._peek().text in ("+", "-") and self._operand_follows():
            plus = self._take().text == "+"
            term = self._product()
            value = value + term if plus else value - term
        return value

    def _product(self) -> Fraction:
        value = self._power()
        while True:
            sign = self._peek()
            if sign.text in ("*", "/") and self._operand_follows():
                self._take()
                value = self._multiplied(value, self._power(), sign.text)
                self._share = self._share or (sign.text == "/" and self._found[self._at - 1].kind == "number")
            elif self._share and sign.text == "of" and self._whole(0):
                self._at += self._whole(0)
                self._operators += 1
                value *= self._power()
            elif sign.kind == "open" and sign.start == self._found[self._at - 1].end:
                self._operators += 1
                value *= self._power()
            else:
                return value

    def _multiplied(self, left: Fraction, right: Fraction, sign: str) -> Fraction:
        if sign == "*":
            return left * right
        if right == 0:
            raise Unreadable("division by zero")
        return left / right

    def _power(self) -> Fraction:
        base = self._signed()
        if self._peek().text != "^":
            return base
        self._take()
        exponent = self._signed()
        bits = base.numerator.bit_length() + base.denominator.bit_length()
        if exponent.denominator != 1 or not 0 <= exponent <= LARGEST_EXPONENT or bits > MOST_BITS:
            raise Unreadable("an exponent past the limits")
        return base**exponent.numerator

    def _signed(self) -> Fraction:
        if self._peek().text in ("-", "+"):
            negative = self._peek().text == "-"
            self._at += 1
            with_sign = self._deeper(self._signed)
            return -with_sign if negative else with_sign
        return self._operand()

    def _operand(self) -> Fraction:
        while self._peek().kind == "money":
            self._at += 1
        token = self._peek()
        if token.kind == "open":
            self._at += 1
            value = self._deeper(self._sum)
            if self._peek().kind != "close":
                raise Unreadable("a parenthesis is not closed")
        elif token.kind == "number":
            value = token.value
            self._note_decimals(token)
        else:
            raise Unreadable("an operand is missing")
        self._at += 1
        self._first = value if self._first is None else self._first
        return self._with_unit(value)

    def _note_decimals(self, token: Token) -> None:
        self._decimals = max(self._decimals, token.decimals)
        if token.decimals >= 2 and token.value:
            self._slack = max(self._slack, Fraction(1, 10**token.decimals) / token.value)

    def _with_unit(self, value: Fraction) -> Fraction:
        """The operand after its percent sign and the words behind it."""
        self._share = 0 < value < 1 and value.denominator > 1
        if self._peek().kind == "percent":
            self._at += 1
            self._share = True
            value *= Fraction(1, 100) if self._peek().text == "of" else self._percent
        if not (self._share and self._peek().text == "of"):
            self._share = False
            self._skip_unit()
        return value

    def _skip_unit(self) -> None:
        """Move past unit words; `per hour` and `/hour` belong to them."""
        for _ in range(MOST_UNIT_WORDS):
            slash = self._peek().text == "/" and self._peek(1).kind == "word"
            word = self._peek(1) if slash else self._peek()
            if word.kind == "money" and word.text == "¢":
                self._at += 1
            elif word.kind == "word" and self._is_unit(word) and not (word.text == "of" and self._whole(0)):
                self._at += 2 if slash else 1
            else:
                return

    def _is_unit(self, word: Token) -> bool:
        return word.text not in CLAUSES and (len(word.text) > 1 or word.text in UNIT_LETTERS or is_japanese(word.text))

    def _operand_follows(self) -> bool:
        """Whether the sign at hand has an operand behind it."""
        ahead = 1
        while ahead < DEEPEST and (self._peek(ahead).kind == "money" or self._peek(ahead).text in ("-", "+")):
            ahead += 1
        return self._peek(ahead).kind in ("number", "open")

    def _whole(self, ahead: int) -> int:
        """How many tokens on the number stands that `of` or `of the` leads to; 0 where none does."""
        ahead += 1
        while self._peek(ahead).text in DETERMINERS:
            ahead += 1
        return ahead if self._peek(ahead).kind in ("number", "money", "open") else 0

    def _take(self) -> Token:
        token = self._peek()
        self._at += 1
        self._operators += 1
        return token

    def _deeper(self, part: Callable[[], Fraction]) -> Fraction:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unreadable("nested too deeply")
        value = part()
        self._depth -= 1
        return value
