"""Keeps what is private from leaving for an endpoint: placeholders go in its place, and it comes back in the reply.

What is found is found by its form, by check digits, and by names that somebody listed. Anything else that tells who is
meant (a name that is not listed, an address, a date of birth, a description) is not found.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

from loop.answer import AnswerKind
from loop.config import RedactConfig
from loop.errors import BadConfig
from loop.plain import JAPANESE
from loop.ports import Completion, Request
from loop.private import FINDERS, Finder, Span, by, either_way, written
from loop.records import Item

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]{0,40}_\d{1,6}\]")
MARK = r"\[({})(?:\\{{0,2}}_|[ -])(\d{{1,6}})\]"
"""A placeholder of these labels as endpoints write it too: in small letters, with a backslash as Markdown does."""
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

    def answer(self, text: str, task: AnswerKind) -> str:
        """An answer as it may leave; labels are the config's, and are told anyway."""
        return text if task is AnswerKind.LABEL else self.text(text)

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


def bare(text: str, settings: RedactConfig) -> str:
    """The text without what would be hidden of it, or is: texts that differ in that alone give the same."""
    return PLACEHOLDER.sub("[]", Hider(settings).text(text))


def kinds_in(item: Item, settings: RedactConfig) -> set[str]:
    """The labels of what would be hidden in an item."""
    return {label for find in _finders(settings) for _, _, label in find(item.text) if label != LITERAL}


def _mark(labels: Iterable[str]) -> re.Pattern[str]:
    return re.compile(MARK.format("|".join(sorted({*labels}))), re.IGNORECASE)


def _mark_of(hidden: Mapping[str, str]) -> re.Pattern[str]:
    return _mark(placeholder[1:-1].rpartition("_")[0] for placeholder in hidden)


def _shown(text: str, hidden: Mapping[str, str]) -> str:
    return _mark_of(hidden).sub(lambda found: hidden.get(f"[{found[1].upper()}_{found[2]}]", found[0]), text)


def _shown_tokens(completion: Completion, hidden: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    """The tokens, those that spell a placeholder as one, whose probability is that of all."""
    within = {
        place
        for found in _mark_of(hidden).finditer("".join(token for token, _ in completion.tokens))
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
    own = [either_way(by(name.upper(), re.compile(pattern))) for name, pattern in patterns]
    listed = () if names is None else (_listed(names),)
    return (by(LITERAL, _mark(labels)), *own, *listed, *(FINDERS[kind] for kind in kinds))


def _listed(file: Path) -> Finder:
    """What finds the names of a file, the longest first, as whole words where their script has any.

    Names are looked up by their first word, so that a long list takes no longer than a short one.
    """
    try:
        names = {" ".join(written(line).text.split()) for line in file.read_text(encoding="utf-8").splitlines()}
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

    return either_way(find)


def _whole(name: str) -> str:
    """The pattern of a name that no longer word begins with; Japanese and Chinese do not tell words apart."""
    end = "" if re.match(rf"[\W{JAPANESE}]", name[-1]) else rf"(?![^\W{JAPANESE}])"
    return r"\s+".join(map(re.escape, name.split())) + end
