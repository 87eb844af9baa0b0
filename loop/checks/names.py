"""Does the rationale name people, places or works that the item does not mention?"""

import re
from collections.abc import Iterator

from loop.answer import AnswerKind
from loop.checks.doubt import MOST_STEPS, Check, Doubt, Doubtful
from loop.checks.words import word_set
from loop.config import ChecksConfig
from loop.plain import plain

WEIGHT = 0.2
MOST_DOUBTS = 10
LONGEST_STEP = 4_000
LONGEST_TEXT = 20_000
WORD = re.compile(r"[^\W\d_]+")
LONGEST_NAME_IN_AN = 5
"""Letters up to which a word such as Susan is a name, not an adjective such as Italian."""
NAME = re.compile(r"(?<=[a-z0-9,] )[A-Z][a-z]{2,15}(?: [A-Z][a-z]{2,15}){0,2}\b")
"""Capitalised words within a sentence."""
OWNER = re.compile(
    r"(?:^|(?<=[.!?] ))[A-Z][a-z]{2,15}(?=['\u2019]s\b| (?:ha[sd]|bought|buys|gave|gives|needs|ate|eats|makes|made|"
    r"spent|sold|sells|earns|earned|went|got|gets|lost|paid|pays|works|worked)\b)"
)
"""A capitalised word that begins a sentence, where it owns or does something."""
ADDRESSED = re.compile(r"[\u30a1-\u30fc\u4e00-\u9fff]{1,6}(?=さん|くん|君|ちゃん|氏|様)")
"""A Japanese name, known by what stands behind it."""
PATTERNS = (NAME, OWNER, ADDRESSED)
NO_NAMES = word_set(
    "let here where when she each he they this that there everyone someone nobody who which what one half total both "
    "all now then answer step option options choice choices question premise hypothesis statement therefore thus hence "
    "given time number monday tuesday wednesday thursday friday saturday sunday january february march april may june "
    "july august september october november december jan feb mar apr jun jul aug sep sept oct nov dec wikipedia earth "
    "god american united states 皆 奥 客 母 父 兄 姉 店員 患者"
)
"""Words written like names; they name nobody."""


def unknown_names(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each new name; none where it may belong: in a free text, or in what a choice asks people to know."""
    closed = doubtful.task.answer in (AnswerKind.NUMBER, AnswerKind.LABEL)
    if not (closed or (doubtful.task.answer is AnswerKind.CHOICE and doubtful.item.context)):
        return []
    steps = [plain(step[:LONGEST_STEP]) for step in doubtful.rationale.steps[:MOST_STEPS]]
    item = " ".join([doubtful.item.text[:LONGEST_TEXT], *doubtful.task.labels, doubtful.task.instructions])
    known = set(WORD.findall(item.casefold())) | NO_NAMES
    known |= {word for step in steps for word in WORD.findall(step) if word.islower() and word.isascii()}
    found = []
    for at, step in enumerate(steps):
        for name in _new(step, known, item):
            found.append(Doubt("names", at, f"“{name}” is not mentioned in the item", WEIGHT))
            known |= set(WORD.findall(name.casefold()))
    return found[:MOST_DOUBTS]


def _new(step: str, known: set[str], item: str) -> Iterator[str]:
    """Names of a step that share no beginning of a word with what is known: `Dutch` does with `Dutchman`."""
    for pattern in PATTERNS:
        for match in pattern.finditer(step):
            words = WORD.findall(match[0].casefold())
            if match[0] not in item and not any(word in known or _is_alike(word, known) for word in words):
                yield match[0]


def _is_alike(word: str, known: set[str]) -> bool:
    """Whether a word begins like one that is known, or is an adjective of a country or language."""
    if word.isascii() and len(word) > LONGEST_NAME_IN_AN and word.endswith(("an", "ish", "ese")):
        return True
    return word.isascii() and any(each.startswith(word[:4]) for each in known)


CHECK = Check("names", unknown_names, milliseconds=0.1)
