"""What checks compare a rationale with, and what verdicts on earlier rounds teach."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loop import certification
from loop.checks import neighbours
from loop.checks.flag import Doubtful
from loop.checks.learn import Judged, Learned, learn
from loop.checks.risk import RiskModel
from loop.config import Config, ReviewConfig
from loop.ports import Student
from loop.records import Checkpoint, DecisionKind, Item, Promise, Rationale, RiskFit, Round, Split
from loop.stages.parts import Parts, id_of, seed_of, student_of, trained_by
from loop.store import certificates, checkpoints, decisions, items, rationales, rounds
from loop.store.database import Store
from loop.teacher.confidence import Verdicted

Embedder = Callable[[Sequence[str]], NDArray[np.float32]]


class Looking:
    """Puts together what checks compare a rationale with, from what the store and a trained student know.

    What the student said of an item when it was picked is that of the round that asked it.
    """

    def __init__(
        self, current: Round, store: Store, student: Student | None, config: Config, *, embed: Embedder | None = None
    ) -> None:
        self._store, self._student, self._config, self._embed = store, student, config, embed
        self._scored = cache(self._scores)
        self._contexts = rationales.by_context(store, current.run)
        gold = [
            (item, rationale.parsed)
            for item, rationale, decision in decisions.decided(store, current.run)
            if decision.kind is DecisionKind.GOLD and rationale.parsed is not None
        ]
        self._decided = neighbours.decided([item for item, _ in gold], [answer for _, answer in gold])

    def __call__(self, some: Sequence[Rationale]) -> list[Doubtful]:
        """Each rationale as the checks look at it."""
        wanted = items.existing(self._store, [rationale.item_key for rationale in some])
        cases = [self._case(wanted[rationale.item_key], rationale) for rationale in some]
        return [replace(case, beside=self._beside(case)) for case in cases]

    def _beside(self, case: Doubtful) -> list[Doubtful]:
        """What the teacher had said by then of other items with the same context."""
        shared = self._contexts.get(case.item.context, []) if case.item.context else []
        known = {
            other.key: (other, rationale)
            for other, rationale in shared
            if rationale.round_id <= case.rationale.round_id
        }
        return [self._case(other, rationale) for key, (other, rationale) in known.items() if key != case.item.key]

    def _scores(self, round_id: int) -> Mapping[str, Mapping[str, Any]]:
        return {score.item_key: score.parts for score in rounds.scores(self._store, round_id)}

    def _case(self, item: Item, rationale: Rationale) -> Doubtful:
        student = self._student
        writer = student if self._config.student.kind != "encoder" else None
        parts = [rationale.steps[:end] for end in range(len(rationale.steps) + 1)]
        return Doubtful(
            item=item,
            rationale=rationale,
            task=self._config.task,
            siblings=tuple(rationales.siblings(self._store, rationale)),
            student=self._scored(rationale.round_id).get(item.key),
            after=(lambda: writer.answers_after([item], [parts])[0]) if writer is not None else None,
            likelihoods=(lambda: writer.step_likelihoods([item], [rationale.steps])[0]) if writer is not None else None,
            embed=self._embed,
            probabilities=cache(lambda: student.probabilities([item])[0]) if student is not None else None,
            decided=self._decided,
        )


def looking(current: Round, store: Store, parts: Parts, config: Config) -> Looking:
    """As a round looks: with the student in force, or under a certified threshold with that of the round it is from."""
    before = student_before(_learns_as(current, store, config), store)
    embed = _embedder(parts) if config.student.kind == "encoder" else None
    if before is None:
        return Looking(current, store, None, config, embed=embed)
    student = student_of(before, parts)
    return Looking(current, store, student, trained_by(before, config), embed=embed)


def student_before(current: Round, store: Store) -> Checkpoint | None:
    """The student that was in force when a round began."""
    past = [each for each in rounds.all_rounds(store, current.run) if each.number < current.number and each.student_id]
    return checkpoints.get(store, past[-1].student_id or 0) if past else None


def behind_the_threshold(store: Store, run: str) -> Checkpoint | None:
    """The student with which rounds look that rely on the newest certified threshold."""
    looks = certificates.of_run(store, run, Promise.THRESHOLD)
    fit = rationales.risk_fit(store, looks[-1].round_id) if looks and looks[-1].threshold is not None else None
    return None if fit is None else student_before(rounds.by_id(store, fit.learned_in or fit.round_id), store)


def _embedder(parts: Parts) -> Embedder:
    """Vectors of texts by the untrained student, whose meanings no round changes."""
    student = parts.trainer.student(None)
    return lambda texts: student.embed(
        [Item(key=str(at), question=text, split=Split.POOL, text_hash="") for at, text in enumerate(texts)]
    )


def _learns_as(current: Round, store: Store, config: Config) -> Round:
    """The round whose model this one uses: itself, or the one that a certified threshold is from."""
    stored = rationales.risk_fit(store, id_of(current))
    relied_on = certification.threshold_in_force(store, current, config) if stored is None else None
    fixed = stored or (None if relied_on is None else rationales.risk_fit(store, relied_on.round_id))
    return current if fixed is None else rounds.by_id(store, fixed.learned_in or fixed.round_id)


def learned(
    current: Round, store: Store, looked_at: Looking, config: Config, *, unseen: Set[str] = frozenset()
) -> Learned:
    """What people said in earlier rounds of all but `unseen` items teaches the round; its risk model is stored.

    Under a certified threshold the round learns what the one that was looked at had learned, and nothing else.
    """
    stored, source = rationales.risk_fit(store, id_of(current)), _learns_as(current, store, config)
    fixed = rationales.risk_fit(store, id_of(source))
    until = datetime.now(UTC) if fixed is None else fixed.fitted_at
    past = [each for each in rationales.judged(store, current.run, until) if each.item.key not in unseen]
    bodies = {each.id: rounds.config_of(store, each) for each in rounds.all_rounds(store, current.run)}
    judged = [
        Judged(
            case,
            each.risk.evidence,
            each.wrong,
            1 / review_chance(each, ReviewConfig.model_validate(bodies[each.query.round_id]["review"])),
            steps=not each.wrong or bool(each.wrong_steps),
            first_error=min(each.wrong_steps, default=None),
        )
        for case, each in zip(looked_at([each.rationale for each in past]), past, strict=True)
    ]
    certifying = {query.item_key for query in rounds.queries(store, id_of(source)) if query.certify}
    seen = [each for each in rationales.of_round(store, id_of(source)) if each.is_reply]
    pool = looked_at([each for each in seen if each.item_key not in certifying])
    found = learn(judged, pool, seed=seed_of(config, source.number))
    if stored is None:
        stored = rationales.keep_risk_fit(
            store,
            RiskFit(
                round_id=id_of(current),
                base=(fixed or found.risk).base,
                weights=dict((fixed or found.risk).weights),
                reviewed=(fixed or found.risk).reviewed,
                fitted_at=until,
                learned_in=None if fixed is None else fixed.round_id,
            ),
        )
    return replace(found, risk=RiskModel(stored.base, stored.weights, stored.reviewed))


def review_chance(judged: rationales.Judged, config: ReviewConfig) -> float:
    """How likely a rationale was to be learned from: for certain from the threshold on, else as an audit to fit on."""
    audited = judged.query.audit_probability * (1 - config.certify_share)
    return 1.0 if judged.risk.value >= config.risk_threshold else audited or 1.0


def verdicted(source: Round, store: Store) -> list[tuple[Rationale, Verdicted]]:
    """What people had said of the teachers' rationales when a round was opened, weighted by the chance of a review."""
    judged = [each for each in rationales.judged(store, source.run, source.opened_at) if each.rationale.is_reply]
    bodies = {each.id: rounds.config_of(store, each) for each in rounds.all_rounds(store, source.run)}
    found = []
    for each in judged:
        review = ReviewConfig.model_validate(bodies[each.query.round_id]["review"])
        said = Verdicted(each.rationale.confidence or 0.0, not each.wrong, 1 / review_chance(each, review))
        found.append((each.rationale, said))
    return found
