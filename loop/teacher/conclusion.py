"""Takes what states the final answer out of steps, so that they can be judged without it."""

import re
from collections.abc import Sequence

from loop.answer import Answer, AnswerKind, shown

SO = r"(?:so|thus|hence|therefore|consequently|finally|in conclusion|which means|this means|that means|meaning|making)"
NOUN = r"(?:answer|solution|label|choice|option|conclusion|verdict|relationship|relation|classification|category)"
ANNOUNCED = re.compile(
    rf"[\s,;:]{{0,3}}(?:\b{SO}\b[\s,]{{0,3}}){{0,3}}(?:that\s{{1,3}})?"
    r"(?:\b(?:the|my|our|this|its|final|correct|right|best|overall)\b\s{1,3}){0,5}"
    rf"\b{NOUN}\b(?:\s{{1,3}}(?:to|of|for|between)\s[^.,;:=]{{1,80}}?)?"
    r"(?:\s{1,3}(?:is|are|was|must be|should be|would be|will be|has to be)\b|\s{0,3}[:=])"
    r".*?(?=\s(?:because|since)\b|$)"
    rf"|[\s,;:]{{0,3}}(?:\b{SO}\b[\s,]{{0,3}}){{0,3}}(?:\b(?:choice|option|answer)\s{{1,3}})?\(?\b\w{{1,40}}\)?\s{{1,3}}"
    rf"(?:is|must be)\s{{1,3}}(?:the\s{{1,3}})?(?:(?:correct|right|best|final)\s{{1,3}})?{NOUN}\b"
    r"(?=\s(?:because|since)\b|\W*$)"
    r"|\b(?:choice|option)\s{1,3}\(?[A-Z]\)?\s{1,3}is\s{1,3}(?:the\s{1,3})?(?:correct|right|best)\b"
    r"|(?:したがって|よって|ゆえに|従って)?、?(?:最終的な)?(?:答え|正解|解答|ラベル|結論)は[^。]{0,200}",
    re.IGNORECASE | re.DOTALL,
)
"""From `so the answer is` to the end of the sentence, or to the reason given there."""
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|(?<=。)")
CLAUSE = re.compile(rf"(?<=[.!?;])\s+(?=\S)|(?<=。)|[,;]?\s+(?={SO}\b)", re.IGNORECASE)
PHRASE = re.compile(rf"(?<=[.!?;,])\s+(?=\S)|(?<=[。、])|\s+(?={SO}\b)", re.IGNORECASE)
FOLLOWS = re.compile(r"\s*(?:[,.:;]|\b(?:because|since)\b)", re.IGNORECASE)
TAG = re.compile(r"\b(?:a|ans|answer|result|solution|total|it|is|final)\b", re.IGNORECASE)
"""May stand beside an answer that stands alone, as in `A: 14`."""
OPENS = re.compile(rf"\s*(?:{SO}\b|したがって|よって|ゆえに|従って)", re.IGNORECASE)
COMPUTED = re.compile(
    r"[\d)%]\s{0,3}(?:=|[-+*/\u00d7\u00f7^]\s{0,3}[$(\d])|[a-z]\s[-+*/\u00d7\u00f7]\s[$(\d]", re.IGNORECASE
)


Name = re.Pattern[str]


def without_conclusion(steps: Sequence[str], answer: Answer | None, stated: str, choices: Sequence[str]) -> list[str]:
    """The steps without what announces the answer, and the last one without the clauses that only state it.

    A step that says nothing else is empty. A computation stays, whatever it ends in; so does what a step says of the
    answer as one of several choices, except at its very start and at the very end.
    """
    named = answer is not None and answer.kind in (AnswerKind.CHOICE, AnswerKind.LABEL)
    names = _names(answer, stated, choices)
    left = [_without_announcement(_without_start(step, names) if named else step, names) for step in steps]
    last = max((at for at, step in enumerate(left) if step), default=None)
    if last is not None:
        left[last] = _without_end(left[last], names, named=named)
    return left


def _without_start(step: str, names: Sequence[Name]) -> str:
    """The step without an answer in front of its reasons, as in `Yes, because`."""
    for name in names:
        found = name.match(step)
        if found and FOLLOWS.match(step, found.end()):
            return step[found.end() :].lstrip(" ,.:;")
    return step


def _without_announcement(step: str, names: Sequence[Name]) -> str:
    def unless_computed(announced: re.Match[str]) -> str:
        return announced[0] if _is_computed(announced[0], names) else ""

    sentences = (_told(ANNOUNCED.sub(unless_computed, sentence)) for sentence in SENTENCE.split(step))
    return _told(" ".join(filter(None, sentences)))


def _without_end(step: str, names: Sequence[Name], *, named: bool) -> str:
    """The step without the last clauses that name the answer; a number or text must stand alone, or behind `so`."""
    starts = [0, *(found.end() for found in (PHRASE if named else CLAUSE).finditer(step)), len(step)]
    for start, end in zip(reversed(starts[:-1]), reversed(starts[1:]), strict=True):
        clause = step[start:end]
        rest = _without_last(clause, names)
        if rest is None:
            return _told(step[:end])
        only_states = OPENS.match(clause) or not _told(TAG.sub("", rest))
        if not named and (not only_states or _is_computed(clause, names)):
            return _told(step[:end])
    return ""


def _is_computed(text: str, names: Sequence[Name]) -> bool:
    """Whether the text computes something; the answer itself, a date or a fraction, does not."""
    rest = _without_last(text, names)
    return COMPUTED.search(text if rest is None else rest) is not None


def _without_last(text: str, names: Sequence[Name]) -> str | None:
    """The text without the last place where it names the answer; None where it does not."""
    found = [match for name in names for match in name.finditer(text)]
    if not found:
        return None
    last = max(found, key=lambda match: (match.end(), -match.start()))
    return text[: last.start()] + text[last.end() :]


def _names(answer: Answer | None, stated: str, choices: Sequence[str]) -> list[Name]:
    """How the answer may be called."""
    names = {stated.strip()}
    if answer is not None:
        names |= {answer.value, shown(answer, choices).partition(") ")[2]}
    letter = answer is not None and answer.kind is AnswerKind.CHOICE
    # A choice's letter is a name only where it stands like one, not as the article `a`.
    return [
        re.compile(rf"\({name}\)|\b{name}\b(?=\W*$)")
        if letter and len(name) == 1
        else re.compile(rf"(?<![\w.]){_spelled(name)}(?!\w|\.\d)", re.IGNORECASE)
        for name in sorted(filter(None, names))
    ]


def _spelled(name: str) -> str:
    """A pattern for a name; a number may have commas between its thousands."""
    return re.sub(r"(?<=\d)(?=(?:\d{3})+(?:\.|$))", ",?", name) if name.isdigit() else re.escape(name)


def _told(text: str) -> str:
    """The text, empty where no word is left in it."""
    text = text.strip().rstrip(",;:")
    return text if any(character.isalnum() for character in text) and not OPENS.fullmatch(text) else ""
