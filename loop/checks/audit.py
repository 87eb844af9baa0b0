"""Do the checks read the steps, or only the answer?

Many detectors of wrong reasoning turn out to read the final answer alone (arXiv 2605.08346). Each check therefore looks
three times at rationales of which it is known whether they are wrong: as they are, with the true answer put in place of
the stated one (*forced*), and with the answer taken out (*removed*). One that tells wrong from right only as they are
has read the answer.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from sklearn.model_selection import KFold

from loop.answer import Answer, AnswerKind, shown
from loop.checks import first_error, reader
from loop.checks.doubt import Doubtful
from loop.checks.flag import SHOWN, doubts
from loop.checks.learn import Learned
from loop.checks.reader import Background
from loop.checks.risk import evidence
from loop.config import ChecksConfig
from loop.records import Item, Rationale

BLANK = "___"
"""Stands where an answer was taken out."""
FOLDS = 5
CERTAIN = 1.96
"""Standard errors on either side of a 95 % interval."""
CHANCE = 0.025
"""One-sided level of the test against chance (Mann and Whitney)."""
NUMERAL = re.compile(r"-?(?<![\w.,])[0-9]{1,15}(?:,[0-9]{3}){0,5}(?:\.[0-9]{1,15})?(?!\w|[.,][0-9])")
NEAR = 100
"""Characters on either side of a number that are looked at."""
COMPUTED = (
    re.compile(r"(?:[-+*/\u00d7\u00f7^]\s*|\d[\d\s.,()$€£%+\-*/\u00d7\u00f7x=]*=\s*)[$€£(]*\s*$"),
    re.compile(r"\s*\)?\s*(?:[+*/\u00d7\u00f7^]|[-=]\s*[$€£(]*\d)"),
)
"""What stands before or behind a number that is part of a computation; that is a step, and states no answer."""
Floats = NDArray[np.float64]


class Variant(StrEnum):
    """What a check is shown of a rationale."""

    AS_IS = "as_is"
    FORCED = "forced"
    REMOVED = "removed"


class Reads(StrEnum):
    """What a check was found to read."""

    SILENT = "nothing: it never doubted"
    CHANCE = "nothing that tells wrong from right here"
    ANSWER = "the answer only"
    FIT = "how the answer fits the rest"
    MOSTLY_ANSWER = "the answer mostly"
    STEPS = "the steps"


@dataclass(frozen=True)
class Known:
    """A rationale of which it is known whether it is wrong, and what the true answer is.

    `look` puts together what checks compare a changed version with. `first_error` counts only where people judged the
    `steps` too.
    """

    case: Doubtful
    truth: Answer
    wrong: bool
    look: Callable[[Rationale], Doubtful]
    steps: bool = False
    first_error: int | None = None


@dataclass(frozen=True)
class Auroc:
    """How well doubts tell wrong from right: the chance that a wrong rationale is doubted more than a right one.

    The 95 % interval is DeLong's (Biometrics 44, 1988).
    """

    value: float
    low: float
    high: float
    above_chance: bool


@dataclass(frozen=True)
class Audited:
    """What was found about one check; `risk` is what all of them say together."""

    check: str
    raised_on_wrong: float
    raised_on_right: float
    """Shares of the rationales as they are on which it raised a flag."""
    aurocs: Mapping[Variant, Auroc]
    reads: Reads


def audit(known: Sequence[Known], config: ChecksConfig, *, seed: int, step: Callable[[], object]) -> list[Audited]:
    """What every enabled check reads, and what all together do; `step` is called after each rationale.

    What is learned from verdicts is learned on other rationales than it is audited on.
    """
    names = [*config.enabled, "risk"]
    weights = {variant: np.zeros((len(known), len(names))) for variant in Variant}
    for learn, test in KFold(FOLDS, shuffle=True, random_state=seed).split(known):
        learned = _learned([known[at] for at in learn], seed)
        for at in test:
            for variant, case in _variants(known[at]).items():
                weights[variant][at] = _weights(learned, case, config, names)
            step()
    wrong = np.array([each.wrong for each in known])
    return [
        _audited(name, {variant: found[:, place] for variant, found in weights.items()}, wrong)
        for place, name in enumerate(names)
    ]


def forced(rationale: Rationale, item: Item, truth: Answer) -> Rationale:
    """The rationale with the true answer stated, in its last step too."""
    return _with(rationale, item, truth.canonical, shown(truth, item.choices))


def removed(rationale: Rationale, item: Item) -> Rationale:
    """The rationale without its answer, in its last step too."""
    return _with(rationale, item, None, "")


def _variants(known: Known) -> dict[Variant, Doubtful]:
    case = known.case
    return {
        Variant.AS_IS: case,
        Variant.FORCED: known.look(forced(case.rationale, case.item, known.truth)),
        Variant.REMOVED: known.look(removed(case.rationale, case.item)),
    }


def _with(rationale: Rationale, item: Item, answer: str | None, stated: str) -> Rationale:
    """The rationale with another answer; it keeps its id, by which its sibling samples are found."""
    given, steps = rationale.parsed, list(rationale.steps)
    if given is not None and steps:
        steps[-1] = restated(steps[-1], given, stated or BLANK, choices=item.choices)
    kept = {name: getattr(rationale, name) for name in ("id", "item_key", "round_id", "author", "sample", "confidence")}
    return Rationale(**kept, planted_from=rationale.planted_from, steps=steps, answer=answer, stated=stated)


def restated(step: str, given: Answer, by: str, *, choices: Sequence[str] = ()) -> str:
    """The step with other words where it states the given answer; a computation that leads there stays."""
    spans = _numbers(step, given) if given.kind is AnswerKind.NUMBER else _mentions(step, given, choices)
    for start, end in reversed(spans):
        step = step[:start] + by + step[end:]
    return step


def _numbers(step: str, given: Answer) -> list[tuple[int, int]]:
    """From where to where the step states the number outside a computation."""
    return [
        match.span()
        for match in NUMERAL.finditer(step)
        if Fraction(match[0].replace(",", "")) == Fraction(given.value)
        and not COMPUTED[0].search(step[max(0, match.start() - NEAR) : match.start()])
        and not COMPUTED[1].match(step[match.end() : match.end() + NEAR])
    ]


def _mentions(step: str, given: Answer, choices: Sequence[str]) -> list[tuple[int, int]]:
    """From where to where the step names the label, text or choice, which has a letter too; spans are never named."""
    words, letter = {given.value, given.value.replace("_", " ")}, ""
    if given.kind is AnswerKind.CHOICE:
        place = ord(given.value) - ord("A")
        words = {choice for choice in choices[place : place + 1] if len(choice) > 1}
        letter = rf"|[(\[]{given.value}[)\]]|(?<=answer is ){given.value}(?!\w)"
    named = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(words)) or "(?!)"
    spelt = given.kind is not AnswerKind.SPANS and given.value
    return [match.span() for match in re.finditer(named + letter, step, re.IGNORECASE)] if spelt else []


def _learned(known: Sequence[Known], seed: int) -> Learned:
    """The parts that are learned from verdicts; risk keeps the weights that were measured."""
    cases, marked = [each.case for each in known], [each for each in known if each.steps]
    return Learned(
        reader=reader.fit(cases, [each.wrong for each in known], Background(cases, seed=seed), seed=seed),
        first_error=first_error.fit([each.case for each in marked], [each.first_error for each in marked], seed=seed),
    )


def _weights(learned: Learned, case: Doubtful, config: ChecksConfig, names: Sequence[str]) -> list[float]:
    """The weight of each check's heaviest doubt, and the risk."""
    found = doubts(learned.knows(case), config)
    heaviest = {name: max((doubt.weight for doubt in found if doubt.check == name), default=0.0) for name in names}
    return [learned.risk(evidence(found)) if name == "risk" else heaviest[name] for name in names]


def _audited(name: str, weights: Mapping[Variant, Floats], wrong: NDArray[np.bool_]) -> Audited:
    raised = weights[Variant.AS_IS] >= SHOWN
    aurocs = {variant: auroc(each[wrong], each[~wrong]) for variant, each in weights.items()}
    silent = not weights[Variant.AS_IS].any()
    reads = Reads.SILENT if silent else _reads(aurocs)
    return Audited(name, float(raised[wrong].mean()), float(raised[~wrong].mean()), aurocs, reads)


def _reads(aurocs: Mapping[Variant, Auroc]) -> Reads:
    """What is left of a check without the answer; it reads the steps where at least half of what it tells is left.

    Forcing leaves a trace of its own, since the steps of wrong rationales do not lead to the true answer, and where the
    other samples err the item is hard. So it takes both.
    """
    as_is, without_own, without_any = (aurocs[variant] for variant in Variant)
    if not as_is.above_chance:
        return Reads.CHANCE
    if not without_any.above_chance:
        return Reads.FIT if without_own.above_chance else Reads.ANSWER
    half = 0.5 + (as_is.value - 0.5) / 2
    kept = without_own.above_chance and min(without_own.value, without_any.value) >= half
    return Reads.STEPS if kept else Reads.MOSTLY_ANSWER


def auroc(wrong: Floats, right: Floats) -> Auroc:
    """How well weights on wrong and right rationales are told apart; ties count half."""
    wins = (wrong[:, None] > right).astype(np.float64) + (wrong[:, None] == right) / 2
    value = float(wins.mean())
    spread = np.sqrt(wins.mean(axis=1).var(ddof=1) / len(wrong) + wins.mean(axis=0).var(ddof=1) / len(right))
    return Auroc(
        value,
        max(0.0, float(value - CERTAIN * spread)),
        min(1.0, float(value + CERTAIN * spread)),
        value > 0.5 and bool(mannwhitneyu(wrong, right, alternative="greater").pvalue < CHANCE),
    )
