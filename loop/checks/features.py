"""What can be counted in a rationale: how it uses the item, what the other samples support, and how it is written."""

import math
import re
from collections.abc import Container, Iterable
from functools import lru_cache

import numpy as np

from loop.answer import AnswerKind
from loop.checks.doubt import Doubtful
from loop.checks.words import word_set

WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
HEDGES = word_set("may might maybe could possibly probably likely perhaps seems appears unclear assume assuming")
DENIALS = word_set("not no never cannot can't isn't doesn't don't without neither nor none nothing")
MOST_CHARACTERS = 20_000
"""Of a text, what is counted; the rest is not looked at."""
MOST_BESIDE = 10
"""Items with the same context that are looked at."""
CERTAIN = 1e-4


def features(case: Doubtful) -> dict[str, float]:
    """Named counts, shares and log-odds of one rationale."""
    item, text = case.item.text[:MOST_CHARACTERS], "\n".join(case.rationale.steps)[:MOST_CHARACTERS]
    found = _writing(item, text, case) | _use(item, text, case) | _samples(text, case)
    if case.task.answer is AnswerKind.NUMBER:
        found |= _quantities(item, text, case)
    found |= _confidence(case) | _beliefs(case) | _meanings(item, text, case)
    given = case.rationale.parsed
    if given is not None and given.kind is AnswerKind.LABEL:
        found |= {f"{name} if {given.value}": value for name, value in found.items()}
        found[given.value] = 1.0
    return found


def _writing(item: str, text: str, case: Doubtful) -> dict[str, float]:
    words = _words(text)
    return {
        "length": math.log1p(len(words)),
        "length of the item": math.log1p(len(_words(item))),
        "steps": math.log1p(len(case.rationale.steps)),
        "hedges": min(1.0, 0.5 * sum(word in HEDGES for word in words)),
        "denials": min(1.0, 0.5 * sum(word in DENIALS for word in words)),
        "denials in the item": min(1.0, 0.5 * sum(word in DENIALS for word in _words(item))),
        "repetition": 1 - len(set(words)) / len(words) if words else 0.0,
        "no answer": float(case.rationale.answer is None),
        "question": float("?" in text),
        "ends in a full stop": float(text.rstrip().endswith((".", "。"))),
    }


def _use(item: str, text: str, case: Doubtful) -> dict[str, float]:
    """Overlap of the rationale with the item, with its first and last part, and with the answer."""
    parts = [part for part in item.split("\n") if part.strip()] or [""]
    first, last, words = set(_words(parts[0])), set(_words(parts[-1])), set(_words(text))
    both = set(_words(item))
    answer = set(_words(_answer_text(case)))
    others = {word for choice in case.item.choices for word in _words(choice)} - answer
    return {
        "item words used": _inside(both, words),
        "words from the item": _inside(words, both),
        "first part used": _inside(first, words),
        "words from the first part": _inside(words, first),
        "last part used": _inside(last, words),
        "words from the last part": _inside(words, last),
        "last part within the first": _inside(last, first),
        "last part new and used": _inside(last - first, words),
        "first part alone used": _inside(first - last, words),
        "answer words used": _inside(answer, words),
        "answer words in the item": _inside(answer, both),
        "other choices used": _inside(others - both, words),
        "new words": math.log1p(len(words - both - answer)),
    }


def _samples(text: str, case: Doubtful) -> dict[str, float]:
    """What the teacher's other samples say of the answer and of the words."""
    if not case.siblings:
        return {}
    answers = [sibling.answer for sibling in case.siblings if sibling.answer is not None]
    same = sum(answer == case.rationale.answer for answer in answers)
    most = max((answers.count(answer) for answer in set(answers) if answer != case.rationale.answer), default=0)
    n = max(1, len(answers))
    words = set(_words(text)) - set(_words(case.item.text[:MOST_CHARACTERS]))
    support = [_inside(words, set(_words("\n".join(each.steps)[:MOST_CHARACTERS]))) for each in case.siblings]
    return {
        "samples that agree": same / n,
        "samples that agree on another answer": most / n,
        "another answer leads": float(most > same),
        "answers per sample": len(set(answers)) / n,
        "words supported by other samples": sum(support) / len(support),
        **{
            f"sample {each.sample} agrees": 1.0 if each.answer == case.rationale.answer else -1.0
            for each in case.siblings
            if each.answer is not None
        },
    }


def _confidence(case: Doubtful) -> dict[str, float]:
    """How sure the teacher was, and how much surer than of its other samples."""
    if case.rationale.confidence is None:
        return {}
    own = log_odds(case.rationale.confidence)
    others = [log_odds(each.confidence) for each in case.siblings if each.confidence is not None]
    if not others:
        return {"confidence": own}
    return {
        "confidence": own,
        "confidence above other samples": own - sum(others) / len(others),
        "confidence of other samples": sum(others) / len(others),
    }


def _beliefs(case: Doubtful) -> dict[str, float]:
    """How far the student believes the answer, and what was answered on items with the same context."""
    own = _believed(case)
    found = {} if own is None else {"student believes": own}
    beside = [each for each in case.beside[:MOST_BESIDE] if each.rationale.answer is not None]
    if beside:
        same = [each for each in beside if each.rationale.answer == case.rationale.answer]
        found |= {
            "items with the same context": math.log1p(len(beside)),
            "same answer in the same context": len(same) / len(beside),
            "another answer in the same context": float(len(same) < len(beside)),
        }
        believed = [share for each in same if (share := _believed(each)) is not None]
        found["student believes those with the same answer"] = sum(believed)
    return found


def _believed(case: Doubtful) -> float | None:
    """The log-odds that the student gives the answer, from the item alone."""
    given = case.rationale.parsed
    if given is None or given.value not in case.task.labels or case.probabilities is None:
        return None
    shares = case.probabilities()
    place = list(case.task.labels).index(given.value)
    return log_odds(shares[place]) if place < len(shares) else None


def _meanings(item: str, text: str, case: Doubtful) -> dict[str, float]:
    """How near the rationale's meaning is to that of the item, its parts, the answer and the other samples."""
    if case.embed is None:
        return {}
    parts = [part for part in item.split("\n") if part.strip()] or [""]
    others = ["\n".join(each.steps)[:MOST_CHARACTERS] for each in case.siblings]
    own, whole, first, last, answer, *samples = case.embed(
        [text, item, parts[0], parts[-1], _answer_text(case), *others]
    )
    found = {
        "nearness to the item": own @ whole,
        "nearness to the first part": own @ first,
        "nearness to the last part": own @ last,
        "nearness to the answer": own @ answer,
        "nearness of first and last part": first @ last,
        "nearness of item and answer": whole @ answer,
    }
    if samples:
        near = np.array(samples) @ own
        found |= {"nearness to other samples": near.mean(), "nearness to the nearest sample": near.max()}
    return {name: float(value) for name, value in found.items()}


def _quantities(item: str, text: str, case: Doubtful) -> dict[str, float]:
    asked, used = set(_numbers(item)), set(_numbers(text))
    given = next(iter(_numbers(case.rationale.stated)), None)
    elsewhere = [set(_numbers("\n".join(each.steps)[:MOST_CHARACTERS])) for each in case.siblings]
    reached = [_inside({number}, some) for number in used - asked for some in elsewhere]
    found = {
        "quantities left out": 1 - _inside(asked, used),
        "quantities in the item": math.log1p(len(asked)),
        "equations": math.log1p(text.count("=")),
    }
    if elsewhere:
        found["quantities supported by other samples"] = sum(reached) / len(reached) if reached else 1.0
    if given is not None:
        found |= {
            "answer is a fraction": float(given != int(given)),
            "answer stands in the item": float(given in asked),
            "answer is 0": float(given == 0),
            "answer is negative": float("-" in case.rationale.stated),
            "size of the answer": math.log1p(given),
        }
        if elsewhere:
            found["answer reached by other samples"] = sum(given in some for some in elsewhere) / len(elsewhere)
    return found


def _answer_text(case: Doubtful) -> str:
    """The answer in words: the text of a choice, the label, or what was stated."""
    given = case.rationale.parsed
    if given is not None and given.kind is AnswerKind.CHOICE:
        place = ord(given.value) - ord("A")
        return case.item.choices[place] if 0 <= place < len(case.item.choices) else ""
    return case.rationale.stated[:MOST_CHARACTERS]


def log_odds(share: float) -> float:
    """The log-odds of a share, kept finite."""
    share = min(1 - CERTAIN, max(CERTAIN, share))
    return math.log(share / (1 - share))


@lru_cache(maxsize=10_000)
def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.casefold()))


@lru_cache(maxsize=10_000)
def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(found.replace(",", "")) for found in NUMBER.findall(text) if len(found) < 16)


def _inside(some: Iterable[object], others: Container[object]) -> float:
    """The share of some things that are among others; 1 of nothing."""
    counted = list(some)
    return sum(each in others for each in counted) / len(counted) if counted else 1.0
