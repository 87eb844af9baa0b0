"""CHECK: every rationale gets its doubts and its risk; known errors are planted among them."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from loop.checks.flag import SHOWN, Doubt, Doubtful, check_set, doubts
from loop.checks.learn import Learned
from loop.checks.planted import Good, choose
from loop.checks.risk import evidence
from loop.config import Config
from loop.ports import Student
from loop.query import select
from loop.records import CONTROL, Author, Flag, Rationale, Risk, Round, Stage
from loop.stages.judging import Judging
from loop.stages.looking import Looking, learned, looking
from loop.stages.parts import PIECE, Parts, id_of, seed_of, student_in_force
from loop.stages.review import wanted
from loop.store import items, planted, rationales, rounds
from loop.store.database import Store

LEARNED, LIKELY = frozenset({"reader", "first_error"}), 0.5
"""Checks that have something to say of every rationale, and the weight from which on it is a flag."""


def check_rationales(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Check what was asked, then what is planted among it, which has learned nothing from its own items."""
    student = student_in_force(current, store, parts)
    checking = _Checking(current, store, parts, config)
    looked_at = looking(current, store, parts, config)
    checking(rationales.unchecked(store, id_of(current)), looked_at, learned(current, store, looked_at, config))
    _plant(current, store, student, config)
    bad = rationales.unchecked(store, id_of(current), planted=True)
    if bad:
        looked_at, unseen = looking(current, store, parts, config), {each.item_key for each in bad}
        checking(bad, looked_at, learned(current, store, looked_at, config, unseen=unseen))
    checking.say()
    return rounds.enter(store, current, Stage.REVIEW, review_opened_at=datetime.now(UTC))


class _Checking:
    """Checks rationales piece by piece; each piece is stored when done."""

    def __init__(self, current: Round, store: Store, parts: Parts, config: Config) -> None:
        self._store, self._parts, self._config = store, parts, config
        self._audited = {query.item_key for query in rounds.queries(store, id_of(current)) if query.audit}
        self._judging = Judging(current, store, parts, config)
        self.say = self._judging.say

    def __call__(self, todo: Sequence[Rationale], looked_at: Looking, learned: Learned) -> None:
        with self._parts.progress.bar("rationales are checked", len(todo)) as bar:
            for start in range(0, len(todo), PIECE):
                cases = [learned.knows(case) for case in looked_at(todo[start : start + PIECE])]
                settled = partial(self._settled, learned)
                raised = [doubts(case, self._config.checks, settled=partial(settled, case)) for case in cases]
                left = [case for case, some in zip(cases, raised, strict=True) if not settled(case, some)]
                objections = self._judging(left, bar)
                found = [
                    (case, [*some, *objections.get(case.rationale.id or 0, ())])
                    for case, some in zip(cases, raised, strict=True)
                ]
                self._keep(found, learned)
                bar.advance(len(cases) - len(left))

    def _settled(self, learned: Learned, case: Doubtful, some: Sequence[Doubt]) -> bool:
        """Whether no dearer check is needed; audits go through every one."""
        if case.item.key in self._audited:
            return False
        return learned.risk(evidence(some)) >= self._config.checks.settled_risk

    def _keep(self, found: Sequence[tuple[Doubtful, Sequence[Doubt]]], learned: Learned) -> None:
        version = check_set(self._config.checks, self._config.judge.model)
        risks, flags = [], []
        for case, some in found:
            number, seen = case.rationale.id, evidence(some)
            assert number is not None
            risks.append(Risk(rationale_id=number, value=learned.risk(seen), check_set=version, evidence=seen))
            flags += [_flag(number, doubt, case.rationale.steps) for doubt in some if is_shown(doubt)]
        rationales.keep_checked(self._store, risks, flags)


def is_shown(doubt: Doubt) -> bool:
    """Whether a doubt is a flag that reviewers see; every doubt counts for the risk."""
    return doubt.weight >= (LIKELY if doubt.check in LEARNED else SHOWN)


def _flag(number: int, doubt: Doubt, steps: Sequence[str]) -> Flag:
    start, end = doubt.within(steps) or (None, None)
    return Flag(
        rationale_id=number,
        check_name=doubt.check,
        step=doubt.step,
        start=start,
        end=end,
        evidence=doubt.evidence,
        weight=doubt.weight,
    )


def _plant(current: Round, store: Store, student: Student | None, config: Config) -> None:
    """Make the round's planted rationales, once, and let the student look at their items as at any other."""
    size = math.ceil(config.review.planted_share * len(wanted(current, store, config)))
    if not size or planted.of_round(store, id_of(current)):
        return
    before = Counter(each.is_control for each in planted.shown(store, current.run))
    good = [Good(*each) for each in planted.good(store, current.run)]
    seed = seed_of(config, current.number)
    chosen = choose(good, size, ahead=before[False] - before[True], seed=seed)
    rows = [
        Rationale(
            item_key=each.rationale.item_key,
            round_id=id_of(current),
            author=Author.TEACHER,
            steps=list(each.rationale.steps if bad is None else bad.steps),
            answer=each.rationale.answer,
            stated=each.rationale.stated,
            confidence=each.rationale.confidence,
            calibrated=each.rationale.calibrated,
            other=each.rationale.other,
            planted=CONTROL if bad is None else bad.kind.value,
            planted_from=each.rationale.id,
        )
        for each, bad in chosen
    ]
    if rows and student is not None and rounds.scored_chunks(store, id_of(current)):
        some = list(items.existing(store, [each.item_key for each in rows]).values())
        rounds.keep_scores(store, select.score_chunk(id_of(current), -1, some, student, config.query, seed=seed))
    planted.keep(store, rows)
