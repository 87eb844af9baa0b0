"""Numbers in a text: as digits, and as the words that stand for them."""

import re
from fractions import Fraction

DIGITS = re.compile(r"(?<![\w.])\$?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(%?)")
LONGEST_TEXT = 20_000
LONGEST_NUMBER = 18
WORDS = {
    **{
        word: (Fraction(value),)
        for value, word in enumerate(
            [
                "zero",
                "one",
                "two",
                "three",
                "four",
                "five",
                "six",
                "seven",
                "eight",
                "nine",
                "ten",
                "eleven",
                "twelve",
                "thirteen",
                "fourteen",
                "fifteen",
                "sixteen",
                "seventeen",
                "eighteen",
                "nineteen",
                "twenty",
            ]
        )
    },
    **{
        word: (Fraction(value),)
        for word, value in (
            ("thirty", 30),
            ("forty", 40),
            ("fifty", 50),
            ("sixty", 60),
            ("seventy", 70),
            ("eighty", 80),
            ("ninety", 90),
            ("hundred", 100),
            ("thousand", 1000),
            ("dozen", 12),
            ("couple", 2),
            ("pair", 2),
            ("once", 1),
            ("twice", 2),
            ("double", 2),
            ("triple", 3),
            ("thrice", 3),
            ("a", 1),
            ("an", 1),
            ("week", 7),
            ("day", 24),
            ("hour", 60),
            ("minute", 60),
            ("year", 12),
            ("score", 20),
        )
    },
    "half": (Fraction(1, 2), Fraction(2), Fraction(50)),
    "third": (Fraction(1, 3), Fraction(3)),
    "thirds": (Fraction(1, 3), Fraction(3)),
    "quarter": (Fraction(1, 4), Fraction(4), Fraction(25)),
    "quarters": (Fraction(1, 4), Fraction(4), Fraction(25)),
}
"""What a word may stand for; time words bring their usual factor."""


def digits(text: str) -> list[tuple[Fraction, str]]:
    """Numbers written in digits with how they were written; far too long ones are left out."""
    found = []
    for match in DIGITS.finditer(text[:LONGEST_TEXT]):
        plain = match[1].replace(",", "")
        if len(plain) <= LONGEST_NUMBER and plain.isascii():
            found.append((Fraction(plain if not plain.startswith(".") else f"0{plain}"), match[0]))
    return found


def spoken(text: str) -> set[Fraction]:
    """Numbers that the words of a text may stand for, plurals included."""
    found: set[Fraction] = set()
    for word in re.findall(r"[a-z]+", text[:LONGEST_TEXT].casefold()):
        found.update(WORDS.get(word, WORDS.get(word.removesuffix("s"), ())))
    return found
