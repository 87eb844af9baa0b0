"""Keeps what is private from leaving for an endpoint: placeholders go in its place, and it comes back in the reply.

What is found is found by its form, by check digits, and by names that somebody listed. Anything else that tells who is
meant (a name that is not listed, an address, a date of birth, a description) is not found.
"""

import ipaddress
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

from loop.config import RedactConfig
from loop.errors import BadConfig
from loop.plain import JAPANESE
from loop.ports import Completion, Request
from loop.records import Item

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]{0,40}_\d{1,6}\]")
TOLD = (
    "Marks like [EMAIL_1] stand for text that is kept from you. Where you need one, write it exactly as it stands; "
    "never make one up."
)
"""What the endpoint is told of them."""
TOKEN = re.compile(rf"[{JAPANESE}]|[^\W{JAPANESE}]+")
"""A word, or one character of a script without spaces."""
LITERAL = "TEXT"
"""The label of what already looked like a placeholder."""
ESCAPED = re.compile(r'(["\\\x00-\x1f]+)')
"""What JSON does not write as it is: it stays outside of placeholders, so that a value fits into any reply."""
EMAIL = re.compile(r"[\w.+%-][\w.+%'-]{0,63}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
PHONE = re.compile(
    r"(?<![\w.,/-])(?:\+\d{1,3}[ ./-]?)?(?:\(\d{1,5}\)[ ./-]?)?\d{1,14}(?:[ ./-]\d{1,9}){0,7}(?![\w-]|[.,/]\d)"
)
NO_PHONE = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2,4}|\d{4}([./-])\d{1,2}\2\d{1,2}|\d+\.\d+")
"""Dates, and numbers with decimals."""
AMERICAN = re.compile(r"(?:1[ .-])?\d{3}[ .-]\d{3}[ .-]\d{4}")
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}")
SHORTEST_IBAN = 15
CARD = re.compile(r"(?<![\d.,])[2-6](?:[ -]?\d){12,18}(?![\d])")
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
Span = tuple[int, int, str]
"""Where something is found in a text, and the label of its kind."""
Finder = Callable[[str], Iterable[Span]]


class Hider:
    """Puts placeholders into the texts of one request; the same text gets the same one, in order of first sight.

    `known` are placeholders that the request already has, with what they stand for.
    """

    def __init__(self, settings: RedactConfig, known: Mapping[str, str] | None = None) -> None:
        self._find = _finders(settings)
        self._given: dict[tuple[str, str], str] = {}
        self._counts: Counter[str] = Counter()
        for placeholder, value in (known or {}).items():
            label, _, number = placeholder.strip("[]").rpartition("_")
            self._given[label, value] = placeholder
            self._counts[label] = max(self._counts[label], int(number))

    def text(self, text: str) -> str:
        """The text as it may leave."""
        if not self._find:
            return text
        parts, at = list[str](), 0
        for start, end, label in _apart(chain.from_iterable(find(text) for find in self._find)):
            parts += [text[at:start], self._hidden(label, text[start:end])]
            at = end
        return "".join([*parts, text[at:]])

    def item(self, item: Item) -> Item:
        """The item with its texts as they may leave; not one of the store."""
        if not self._find:
            return item
        choices = [self.text(each) for each in item.choices]
        context, question = self.text(item.context), self.text(item.question)
        return Item(
            key=item.key, question=question, context=context, choices=choices, domain=item.domain, split=item.split,
            text_hash=item.text_hash,
        )  # fmt: skip

    def behind(self, message: str) -> dict[str, str]:
        """What the placeholders of a message stand for."""
        return {placeholder: value for (_, value), placeholder in self._given.items() if placeholder in message}

    def _hidden(self, label: str, value: str) -> str:
        """Placeholders for all of the value but what JSON would escape in it."""
        pieces = ESCAPED.split(value)
        return "".join(
            piece if at % 2 or not piece else self._placeholder(label, piece) for at, piece in enumerate(pieces)
        )

    def _placeholder(self, label: str, value: str) -> str:
        if (label, value) not in self._given:
            self._counts[label] += 1
            self._given[label, value] = f"[{label}_{self._counts[label]}]"
        return self._given[label, value]


def told(rules: str, settings: RedactConfig) -> str:
    """The rules for an endpoint, with what it has to know of placeholders where it may see some."""
    return f"{rules}\n{TOLD}" if settings.on else rules


def with_hidden(request: Request, hider: Hider) -> Request:
    """The request with what comes back in its reply: what its last message alone holds, nothing of worked items."""
    return replace(request, hidden=hider.behind(request.messages[-1]["content"]))


def put_back(completion: Completion, hidden: Mapping[str, str]) -> Completion:
    """The completion with what was hidden in the place of its placeholders; others stay as they are."""
    if not hidden:
        return completion
    return replace(completion, text=_shown(completion.text, hidden), tokens=_shown_tokens(completion, hidden))


def kinds_in(item: Item, settings: RedactConfig) -> set[str]:
    """The labels of what would be hidden in an item."""
    return {label for find in _finders(settings) for _, _, label in find(item.text) if label != LITERAL}


def _shown(text: str, hidden: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: hidden.get(found[0], found[0]), text)


def _shown_tokens(completion: Completion, hidden: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    """The tokens, those that spell a placeholder as one, whose probability is that of all."""
    within = {
        place
        for found in PLACEHOLDER.finditer("".join(token for token, _ in completion.tokens))
        for place in range(found.start() + 1, found.end())
    }
    groups, at = list[tuple[str, float]](), 0
    for token, logprob in completion.tokens:
        if at in within:
            groups[-1] = (groups[-1][0] + token, groups[-1][1] + logprob)
        else:
            groups.append((token, logprob))
        at += len(token)
    return tuple((_shown(token, hidden), logprob) for token, logprob in groups)


def _apart(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that overlap as one, under the label of the longest."""
    found: list[Span] = []
    longest = 0
    for start, end, label in sorted(spans):
        if found and start < found[-1][1]:
            begin, before, was = found[-1]
            found[-1] = (begin, max(end, before), label if end - start > longest else was)
            longest = max(longest, end - start)
        else:
            found.append((start, end, label))
            longest = end - start
    return found


def _finders(settings: RedactConfig) -> tuple[Finder, ...]:
    """What finds something; none where nothing is looked for.

    Raises:
        BadConfig: the file of names cannot be read or holds none.
    """
    if not settings.on:
        return ()
    changed = 0
    if settings.names is not None:
        try:
            changed = settings.names.stat().st_mtime_ns
        except OSError as error:
            raise BadConfig(f"redact.names: {settings.names} cannot be read: {error.strerror}") from error
    return _compiled(settings.kinds, tuple(settings.patterns.items()), settings.names, changed)


@lru_cache(maxsize=16)
def _compiled(
    kinds: tuple[str, ...], patterns: tuple[tuple[str, str], ...], names: Path | None, _changed: int
) -> tuple[Finder, ...]:
    """The finders of these settings, with the file of names as it was when it changed last."""
    labels = {LITERAL, "NAME", *(name.upper() for name, _ in patterns), *(kind.upper() for kind in kinds)}
    marks = re.compile(rf"\[(?:{'|'.join(sorted(labels))})_\d{{1,6}}\]")
    own = [_by(name.upper(), re.compile(pattern)) for name, pattern in patterns]
    listed = () if names is None else (_listed(names),)
    return (_by(LITERAL, marks), *own, *listed, *(FINDERS[kind] for kind in kinds))


def _listed(file: Path) -> Finder:
    """What finds the names of a file, the longest first, as whole words where their script has any.

    Names are looked up by their first word, so that a long list takes no longer than a short one.
    """
    try:
        names = {" ".join(line.split()) for line in file.read_text(encoding="utf-8").splitlines()}
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"redact.names: {file} cannot be read: {error}") from error
    by_first: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=lambda name: (-len(name), name)):
        if first := TOKEN.search(name):
            by_first[first[0].casefold()].append(_whole(name[first.start() :]))
    if not by_first:
        raise BadConfig(f"redact.names: {file} holds no name; write one a line, or leave the key out")
    patterns = {first: re.compile("|".join(some), re.IGNORECASE) for first, some in by_first.items()}

    def find(text: str) -> Iterable[Span]:
        for token in TOKEN.finditer(text):
            pattern = patterns.get(token[0].casefold())
            if pattern is not None and (match := pattern.match(text, token.start())):
                yield *match.span(), "NAME"

    return find


def _whole(name: str) -> str:
    """The pattern of a name that no longer word begins with; Japanese and Chinese do not tell words apart."""
    end = "" if re.match(rf"[\W{JAPANESE}]", name[-1]) else rf"(?![^\W{JAPANESE}])"
    return r"\s+".join(map(re.escape, name.split())) + end


def _by(label: str, pattern: re.Pattern[str]) -> Finder:
    def find(text: str) -> Iterable[Span]:
        return ((*match.span(), label) for match in pattern.finditer(text) if match[0])

    return find


def _phones(text: str) -> Iterable[Span]:
    """Numbers with a prefix of a country or a trunk, in brackets, or as Americans write them."""
    for match in PHONE.finditer(text):
        said, digits = match[0], sum(each.isdigit() for each in match[0])
        prefixed = said[0] in "+(" or (said[0] == "0" and digits >= 8) or AMERICAN.fullmatch(said)
        if prefixed and 7 <= digits <= 15 and not NO_PHONE.fullmatch(said):
            yield *match.span(), "PHONE"


def _ibans(text: str) -> Iterable[Span]:
    """The longest right IBAN at each place; what follows it may look like more of it."""
    for match in IBAN.finditer(text):
        for end in range(match.end(), match.start(), -1):
            written = text[match.start() : end]
            if text[end : end + 1].isalnum() or written.endswith(" "):
                continue
            compact = written.replace(" ", "").upper()
            if len(compact) < SHORTEST_IBAN:
                break
            if _is_iban(compact):
                yield match.start(), end, "IBAN"
                break


def _is_iban(compact: str) -> bool:
    """Whether the check digits are right (ISO 7064, modulo 97)."""
    if not compact.isascii():
        return False
    return int("".join(str(int(each, 36)) for each in compact[4:] + compact[:4])) % 97 == 1


def _cards(text: str) -> Iterable[Span]:
    """Numbers of 13 to 19 digits whose last one is right (Luhn)."""
    for match in CARD.finditer(text):
        digits = [int(each) for each in match[0] if each.isdigit()]
        doubled = (each if at % 2 == 0 else sum(divmod(2 * each, 10)) for at, each in enumerate(reversed(digits)))
        if sum(doubled) % 10 == 0:
            yield *match.span(), "CARD"


def _addresses(text: str) -> Iterable[Span]:
    """IP addresses of both versions."""
    for match in chain(IPV4.finditer(text), IPV6.finditer(text)):
        try:
            ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if any(each.isalnum() for each in match[0]):
            yield *match.span(), "IP"


FINDERS: Mapping[str, Finder] = {
    "email": _by("EMAIL", EMAIL),
    "phone": _phones,
    "iban": _ibans,
    "card": _cards,
    "ip": _addresses,
}
