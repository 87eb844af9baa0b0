"""Finds what is private in a text by its form: addresses, telephone numbers, account and card numbers.

A text is looked through as it is, and once more in one way of writing where Unicode has several: full-width signs,
non-breaking spaces and hyphens, dashes, curved apostrophes, accents apart from their letters, and characters that
nobody sees are as people type them.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from loop.plain import JAPANESE

Span = tuple[int, int, str]
"""Where something is found in a text, and the label of its kind."""
Finder = Callable[[str], Iterable[Span]]
MARKS = r"[\u0300-\u036f\u3099\u309a]"
"""What stands over the character before it."""
PIECE = re.compile(rf"([\x00-\x7f\u3041-\u3096\u30a1-\u30fe\u3400-\u9fff]+)(?!{MARKS})|[\s\S]{MARKS}{{0,8}}")
"""A run of characters that people type as they are, or another character with its marks."""
TYPED = {ord(each): "-" for each in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"} | {
    ord(each): "'" for each in "\u2018\u2019\u02bc"
} | {0xDF: "ss", 0x1E9E: "SS"}  # fmt: skip
"""What people type for dashes, for apostrophes, and for sharp s where there are only capitals."""
LETTER = rf"[^\W{JAPANESE}]"
"""Of a word in a script with spaces."""
AT = re.compile("@|%40|&#64;")
EMAIL = re.compile(
    rf"(?:{LETTER}|[.+%-])(?:{LETTER}|[.+%'-]){{0,63}}(?:{AT.pattern})(?:{LETTER}|-){{1,63}}(?:\.(?:{LETTER}|-){{1,63}}){{1,8}}"
)
WIDE_EMAIL = re.compile(
    rf"[\w.+%'-]{{0,63}}(?:[{JAPANESE}]@|(?<=[\w.+%'-])@(?=[{JAPANESE}]))[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{1,8}}"
)
"""Addresses whose name ends, or whose domain begins, in a script without spaces: what stands before is part of it."""
SEPARATOR = "[ ./-]"
PHONE = re.compile(
    rf"(?<![0-9A-Za-z_])(?<!\d[./-])(?=[+(0]|(?:1{SEPARATOR})?\d{{3}}{SEPARATOR})"
    rf"(?=((?:\(?\+\d{{1,3}}\)?{SEPARATOR}?)?(?:\(\d{{1,5}}\){SEPARATOR}?)?"
    rf"\d{{1,14}}(?: [/-] \d{{1,9}})?(?:{SEPARATOR}\d{{1,9}}){{0,7}}))"
)
"""The longest that may be a telephone number, from each place where one may begin."""
PREFIXED = re.compile(r"\(?\+|\(\d|0(?!00|0 ?0)\d")
"""What one begins with: the prefix of a country, brackets, or a trunk's 0 with another digit."""
AMERICAN = re.compile(r"(?:1[ .-])?\d{3}[ .-]\d{3}[ .-]\d{4}")
DATE = re.compile(r"(?:\d{1,2}([./-])\d{1,2}\1\d{2,4}|\d{4}([./-])\d{1,2}\2\d{1,2})(?![./-]?\d)")
NO_PHONE = re.compile(r"\d+\.\d+|[0-2]\d[0-5]\d ?- ?[0-2]\d[0-5]\d")
"""Numbers with decimals, and hours from which to which."""
GROUPS = re.compile(r"\d{3}(?: \d{3})+")
"""Thousands with spaces between."""
CUT = re.compile(r"(?!x\d)-?[0-9A-Za-z_]|[./]\d")
"""What follows where something else is cut in two; an extension (`x12`) is nothing else."""
IBAN = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}))")
SHORTEST_IBAN = 15
CARD = re.compile(r"(?<![\d.])[2-6](?:[ -]?\d){12,18}(?!\d)")
CARDS = tuple(
    re.compile(rf"(?<!\d)(?<!\d\.)(?=({form})(?!\d))")
    for form in (
        r"[2-6]\d{12,18}",
        r"[2-6]\d{3}(?:[ -]\d{4}){3}",
        r"[2-6]\d{3}(?:[ -]\d{4}){3}[ -]\d{1,3}",
        r"3\d{3}[ -]\d{6}[ -]\d{4,5}",
    )
)
"""Cards as they are written, whatever numbers stand around them."""
IPV4 = re.compile(r"(?<![0-9A-Za-z.])(?:\d{1,3}\.){3}\d{1,3}(?![0-9A-Za-z]|\.\d)")
IPV6 = re.compile(r"(?<![0-9A-Za-z_:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z_])")


@dataclass(frozen=True)
class Written:
    """A text in one way of writing. Its characters come from `starts` to `ends` of the text as it is."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


@lru_cache(maxsize=64)
def written(text: str) -> Written:
    """The text as people type it."""
    if text.isascii() or _is_typed(text):
        return Written(text, range(len(text)), range(1, len(text) + 1))
    made, starts, ends = list[str](), list[int](), list[int]()
    for match in PIECE.finditer(text):
        start, end = match.span()
        typed = match[1] or _typed(match[0])
        made.append(typed)
        starts += range(start, end) if match[1] else [start] * len(typed)
        ends += range(start + 1, end + 1) if match[1] else [end] * len(typed)
    return Written("".join(made), starts, ends)


def _is_typed(text: str) -> bool:
    """Whether nothing in it has another way of writing."""
    strange = any(ord(each) in TYPED or unicodedata.category(each) == "Cf" for each in set(text))
    return not strange and unicodedata.is_normalized("NFKC", text)


@lru_cache(maxsize=1 << 14)
def _typed(cluster: str) -> str:
    """A character with its marks as people type it; nothing where nobody sees it."""
    typed = unicodedata.normalize("NFKC", cluster).translate(TYPED)
    return "".join(each for each in typed if unicodedata.category(each) != "Cf")


def either_way(find: Finder) -> Finder:
    """What finds the same in the text as it is and in the text as people type it."""

    def both(text: str) -> Iterator[Span]:
        yield from find(text)
        typed = written(text)
        if typed.text != text:
            for start, end, label in find(typed.text):
                yield typed.starts[start], typed.ends[end - 1], label

    return both


def by(label: str, *patterns: re.Pattern[str]) -> Finder:
    """What finds what the patterns match, but nothing empty."""

    def find(text: str) -> Iterator[Span]:
        for pattern in patterns:
            yield from ((*match.span(), label) for match in pattern.finditer(text) if match[0])

    return find


def _emails(text: str) -> Iterator[Span]:
    """Addresses; most texts hold no sign that one must have."""
    if AT.search(text):
        yield from by("EMAIL", EMAIL, WIDE_EMAIL)(text)


def _phones(text: str) -> Iterator[Span]:
    """Numbers with a prefix of a country or a trunk, in brackets, or as Americans write them.

    From each place the longest, whatever numbers stand before and behind.
    """
    for match in PHONE.finditer(text):
        start = match.start()
        if DATE.match(text, start):
            continue
        for last in reversed([*re.finditer(r"\d(?!\d)", match[1])]):
            end = start + last.end()
            if _is_phone(text, start, end):
                yield start, end, "PHONE"
                break


def _is_phone(text: str, start: int, end: int) -> bool:
    """Whether it is one, and nothing is cut in two; behind a country's prefix a letter may follow."""
    said, before, behind = text[start:end], text[max(0, start - 2) : start], text[end : end + 2]
    if not 7 <= sum(each.isdigit() for each in said) <= 15 or behind[:1].isdigit():
        return False
    if CUT.match(behind) and not (said.lstrip("(").startswith("+") and behind[:1].isalpha()):
        return False
    counted = len(before) == 2 and before[0].isdigit() and before[1] == " "
    if AMERICAN.fullmatch(said):
        return " " not in said or not (counted or re.match(r" \d", behind))
    enough = said[0] != "0" or sum(each.isdigit() for each in said) >= 8
    usual = NO_PHONE.fullmatch(said) or (counted and GROUPS.fullmatch(said))
    return PREFIXED.match(said) is not None and enough and not usual


def _ibans(text: str) -> Iterator[Span]:
    """The longest right IBAN at each place; what stands around it may look like more of it."""
    for match in IBAN.finditer(text):
        start = match.start()
        for end in range(match.end(1), start, -1):
            written_so = text[start:end]
            if re.match("[A-Za-z0-9]", text[end : end + 1]) or not written_so[-1].isalnum():
                continue
            compact = re.sub("[ -]", "", written_so).upper()
            if len(compact) < SHORTEST_IBAN:
                break
            if _is_iban(compact):
                yield start, end, "IBAN"
                break


def _is_iban(compact: str) -> bool:
    """Whether the check digits are right (ISO 7064, modulo 97)."""
    if not compact.isascii():
        return False
    return int("".join(str(int(each, 36)) for each in compact[4:] + compact[:4])) % 97 == 1


def _cards(text: str) -> Iterator[Span]:
    """Numbers of 13 to 19 digits whose last one is right (Luhn)."""
    found = [match.span() for match in CARD.finditer(text)]
    found += [match.span(1) for form in CARDS for match in form.finditer(text)]
    for start, end in found:
        digits = [int(each) for each in text[start:end] if each.isdigit()]
        doubled = (each if at % 2 == 0 else sum(divmod(2 * each, 10)) for at, each in enumerate(reversed(digits)))
        if sum(doubled) % 10 == 0:
            yield start, end, "CARD"


def _addresses(text: str) -> Iterator[Span]:
    """IP addresses of both versions; a colon may follow."""
    for match in chain(IPV4.finditer(text), IPV6.finditer(text)):
        said = match[0] if match[0].endswith("::") else match[0].removesuffix(":")
        try:
            ipaddress.ip_address(said)
        except ValueError:
            continue
        if any(each.isalnum() for each in said):
            yield match.start(), match.start() + len(said), "IP"


FINDERS: Mapping[str, Finder] = {
    "email": either_way(_emails),
    "phone": either_way(_phones),
    "iban": either_way(_ibans),
    "card": either_way(_cards),
    "ip": either_way(_addresses),
}
