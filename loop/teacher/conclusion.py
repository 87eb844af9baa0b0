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
OPENS = re.compile(rf"\s*(?:{SO}\b|したがって|よって|ゆえに|従って)", re.IGNORECASE)
COMPUTED = re.compile(
    r"[\d)%]\s{0,3}[-+*/\u00d7\u00f7^=]\s{0,3}[$(\d]|[a-z]\s[-+*/\u00d7\u00f7]\s[$(\d]", re.IGNORECASE
)


def without_conclusion(steps: Sequence[str], answer: Answer | None, stated: str, choices: Sequence[str]) -> list[str]:
    """The steps without what announces the answer, and the last one without the clauses that only state it.

    A step that says nothing else is empty. A computation stays, whatever it ends in; so does what a step says of the
    answer as one of several choices, except at its very end.
    """
    left = [_without_announcement(step) for step in steps]
    last = max((at for at, step in enumerate(left) if step), default=None)
    if last is not None:
        left[last] = _without_end(left[last], answer, stated, choices)
    return left


def _without_announcement(step: str) -> str:
    sentences = (_told(ANNOUNCED.sub(_unless_computed, sentence)) for sentence in SENTENCE.split(step))
    return _told(" ".join(filter(None, sentences)))


def _unless_computed(announced: re.Match[str]) -> str:
    return announced[0] if COMPUTED.search(announced[0]) else ""


def _without_end(step: str, answer: Answer | None, stated: str, choices: Sequence[str]) -> str:
    """The step without the last clauses that name the answer; numbers and texts are only named behind `so` and such."""
    named = answer is not None and answer.kind in (AnswerKind.CHOICE, AnswerKind.LABEL)
    names = _names(answer, stated, choices)
    starts = [0, *(found.end() for found in (PHRASE if named else CLAUSE).finditer(step)), len(step)]
    for start, end in zip(reversed(starts[:-1]), reversed(starts[1:]), strict=True):
        clause = step[start:end]
        if not any(name.search(clause.replace(",", "")) for name in names):
            return _told(step[:end])
        if not named and (COMPUTED.search(clause) or not OPENS.match(clause)):
            return _told(step[:end])
    return ""


def _names(answer: Answer | None, stated: str, choices: Sequence[str]) -> list[re.Pattern[str]]:
    """How the answer may be called."""
    names = {stated.strip()}
    if answer is not None:
        names |= {answer.value, shown(answer, choices).partition(") ")[2]}
    letter = answer is not None and answer.kind is AnswerKind.CHOICE
    # A choice's letter is a name only where it stands like one, not as the article `a`.
    return [
        re.compile(rf"\({name}\)|\b{name}\b(?=\W*$)")
        if letter and len(name) == 1
        else re.compile(rf"(?<![\w.]){re.escape(name.replace(',', ''))}(?!\w|\.\d)", re.IGNORECASE)
        for name in names
        if name
    ]


def _told(text: str) -> str:
    """The text, empty where no word is left in it."""
    text = text.strip().rstrip(",;:")
    return text if any(character.isalnum() for character in text) and not OPENS.fullmatch(text) else ""
