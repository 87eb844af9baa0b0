"""A reader that learned from people's verdicts which rationales are wrong.

Logistic regression on counts (`features`), which say too what the student believes, what was answered in the same
context and how near the meanings are; on the votes of the other samples weighed by how reliable each voter is
(`votes`); and on words through two more logistic regressions: one on the words of rationales that people judged, one
that says how usual the answer is for such an item and such a rationale, learned from all rationales, judged or not.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from loop.answer import AnswerKind
from loop.checks.doubt import Check, Doubt, Doubtful, Need
from loop.checks.features import CERTAIN, MOST_CHARACTERS, features, log_odds
from loop.checks.votes import Votes, posterior, reliabilities
from loop.config import ChecksConfig

FOLDS = 5
FEWEST = 20
"""Verdicts, and of each kind a quarter of it, below which there is no reader."""
SHRINKAGE = 0.03
"""Inverse strength of the regression on counts (`C`), chosen on train splits."""
Floats = NDArray[np.float64]


class Background:
    """What rationales say without any verdict: their counts, how reliable each voter is, how usual each answer."""

    def __init__(self, cases: Sequence[Doubtful], *, seed: int) -> None:
        self._reliable = reliabilities([_votes(case) for case in cases])
        self._usual = _Usual(cases, seed)
        self._cases = {id(case): case for case in cases}
        self._known: dict[int, dict[str, float]] = {}

    def counts(self, cases: Sequence[Doubtful]) -> list[dict[str, float]]:
        """Named counts of each rationale; those of the background's own are counted once."""
        new = [case for case in cases if id(case) not in self._known]
        found = {id(case): counts for case, counts in zip(new, self._counted(new), strict=True)}
        self._known |= {number: counts for number, counts in found.items() if number in self._cases}
        return [self._known[id(case)] if id(case) in self._known else found[id(case)] for case in cases]

    def _counted(self, cases: Sequence[Doubtful]) -> list[dict[str, float]]:
        usual = self._usual(cases)
        return [features(case) | usual[number] | self._voted(case) for number, case in enumerate(cases)]

    def _voted(self, case: Doubtful) -> dict[str, float]:
        if not case.siblings:
            return {}
        right = posterior(_votes(case), self._reliable).get(case.rationale.answer, 0.0)
        return {"weighed votes": log_odds(right)}


class Reader:
    """The probability that a rationale is wrong, from its text and the other samples."""

    def __init__(self, cases: Sequence[Doubtful], wrong: Sequence[bool], background: Background, *, seed: int) -> None:
        self._background = background
        self._names = DictVectorizer(sparse=False)
        self._words = _words()
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        texts, truth = [_text(case) for case in cases], np.array(wrong)
        unseen = cross_val_predict(_words(), texts, truth, cv=folds, method="predict_proba")[:, 1]
        self._words.fit(texts, truth)
        counted = self._names.fit_transform(self._counted(cases, unseen))
        self._model = make_pipeline(StandardScaler(), LogisticRegression(C=SHRINKAGE, max_iter=1000))
        self._model.fit(counted, truth)

    def __call__(self, cases: Sequence[Doubtful]) -> Floats:
        """The probability in (0, 1) that each is wrong."""
        found = self._model.predict_proba(self._scaled(cases))[:, 1] if cases else np.zeros(0)
        return np.clip(np.asarray(found, dtype=np.float64), CERTAIN, 1 - CERTAIN)

    def explained(self, case: Doubtful) -> tuple[float, list[str]]:
        """The probability that it is wrong, and the counts that speak most for that, the strongest first."""
        scaled = self._model[0].transform(self._scaled([case]))
        parts = scaled[0] * self._model[1].coef_[0]
        share = float(np.clip(self._model[1].predict_proba(scaled)[0, 1], CERTAIN, 1 - CERTAIN))
        return share, [str(self._names.feature_names_[at]) for at in np.argsort(-parts)[:3] if parts[at] > 0]

    def _scaled(self, cases: Sequence[Doubtful]) -> Floats:
        words = self._words.predict_proba([_text(case) for case in cases])[:, 1]
        return np.asarray(self._names.transform(self._counted(cases, words)))

    def _counted(self, cases: Sequence[Doubtful], words: Floats) -> list[dict[str, float]]:
        counts = self._background.counts(cases)
        return [each | {"wording": log_odds(share)} for each, share in zip(counts, words, strict=True)]


class _Usual:
    """How usual an answer is for such an item, and for such a rationale; on tasks with labels only."""

    def __init__(self, cases: Sequence[Doubtful], seed: int) -> None:
        known = [case for case in cases if case.rationale.parsed is not None]
        self._known = {id(case): number for number, case in enumerate(known)}
        answers = [case.rationale.parsed.value for case in known if case.rationale.parsed]
        counts = Counter(answers)
        self._models: dict[str, tuple[Pipeline, Floats]] = {}
        labelled = bool(cases) and cases[0].task.answer is AnswerKind.LABEL
        if labelled and len(counts) > 1 and min(counts.values()) >= FOLDS:
            folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
            for name in ("item", "rationale"):
                texts = [_shown(case, name) for case in known]
                unseen = cross_val_predict(_words(), texts, answers, cv=folds, method="predict_proba")
                self._models[name] = (_words().fit(texts, answers), unseen)

    def __call__(self, cases: Sequence[Doubtful]) -> list[dict[str, float]]:
        found: list[dict[str, float]] = [{} for _ in cases]
        for name, (model, unseen) in self._models.items() if cases else ():
            labels = list(model.classes_)
            fresh = model.predict_proba([_shown(case, name) for case in cases])
            for number, case in enumerate(cases):
                given = case.rationale.parsed
                if given is not None and given.value in labels:
                    known = self._known.get(id(case))
                    shares = fresh[number] if known is None else unseen[known]
                    found[number][f"answer usual for the {name}"] = log_odds(shares[labels.index(given.value)])
        return found


def fit(cases: Sequence[Doubtful], wrong: Sequence[bool], background: Background, *, seed: int) -> Reader | None:
    """A reader of these verdicts; None where they are too few."""
    return Reader(cases, wrong, background, seed=seed) if _are_enough(wrong) else None


def cross_fitted(
    cases: Sequence[Doubtful], wrong: Sequence[bool], background: Background, *, seed: int
) -> Floats | None:
    """For each case the probability by a reader that did not see its verdict; None where there is no reader."""
    if not _are_enough(wrong):
        return None
    found, truth = np.zeros(len(cases)), np.array(wrong)
    for learn, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(truth, truth):
        reader = Reader([cases[at] for at in learn], truth[learn].tolist(), background, seed=seed)
        found[test] = reader([cases[at] for at in test])
    return found


def _are_enough(wrong: Sequence[bool]) -> bool:
    few = FEWEST // 4
    return len(wrong) >= FEWEST and few <= sum(wrong) <= len(wrong) - few


def _words() -> Pipeline:
    """Words and pairs of words into a probability."""
    return make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, token_pattern=r"(?u)\w+"),
        LogisticRegression(C=3.0, max_iter=1000),
    )


def _text(case: Doubtful) -> str:
    """Answer and rationale as one text."""
    answer = case.rationale.stated[:200]
    steps = " ".join(case.rationale.steps)[:MOST_CHARACTERS]
    return f"answer {answer} answer {steps}"


def _shown(case: Doubtful, part: str) -> str:
    text = case.item.text if part == "item" else " ".join(case.rationale.steps)
    return text[:MOST_CHARACTERS] or "nothing"


def _votes(case: Doubtful) -> Votes:
    """What the samples answered, the rationale's own among them."""
    return {each.sample: each.answer for each in (*case.siblings, case.rationale)}


def reads_wrong(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt as heavy as the reader thinks the rationale likely to be wrong."""
    if doubtful.reader is None:
        return []
    share, why = doubtful.reader.explained(doubtful)
    evidence = f"reads like rationales that reviewers found wrong ({share:.0%})"
    return [Doubt("reader", None, evidence + (f": {'; '.join(why)}" if why else ""), share)]


CHECK = Check("reader", reads_wrong, milliseconds=5, needs=frozenset({Need.VERDICTS}))
