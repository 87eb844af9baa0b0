"""What an encoder can point at in a text: its words, its phrases or its sentences."""

import re
from bisect import bisect
from collections.abc import Callable
from itertools import groupby

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from loop.answer import SENTENCE_END
from loop.config import Unit

Span = tuple[int, int]
"""First character of a unit, and the first one behind it."""
WORD = re.compile(r"\w+")
"""What can be masked; everything between words is always seen."""
ENDS = re.compile(rf"{SENTENCE_END.pattern}|\n+")


def spans(text: str, unit: Unit) -> list[Span]:
    """Where the units of a text stand, from left to right; none holds another."""
    return UNITS[unit](text)


def named(unit: str) -> str:
    """A unit as a step of an explanation; the same words in another spelling are the same evidence."""
    return " ".join(unit.lower().split())


def _words(text: str) -> list[Span]:
    return [word.span() for word in WORD.finditer(text)]


def _phrases(text: str) -> list[Span]:
    """Runs of words between which there are only blanks, cut at English function words, which are never evidence.

    As the candidates of RAKE (Rose et al., Text Mining, 2010). In other languages they end at punctuation alone.
    """
    found: list[Span] = []
    for start, end in _words(text):
        if text[start:end].lower() in ENGLISH_STOP_WORDS:
            continue
        if found and text[found[-1][1] : start].isspace():
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _sentences(text: str) -> list[Span]:
    """From the first to the last word of each sentence; a line's end is a sentence's end."""
    ends = [found.start() for found in ENDS.finditer(text)]
    inside = [list(words) for _, words in groupby(_words(text), key=lambda word: bisect(ends, word[0]))]
    return [(words[0][0], words[-1][1]) for words in inside]


UNITS: dict[Unit, Callable[[str], list[Span]]] = {"words": _words, "phrases": _phrases, "sentences": _sentences}
