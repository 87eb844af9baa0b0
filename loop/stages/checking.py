"""Runs the checks on rationales, and keeps what they find."""

from collections.abc import Sequence
from functools import partial

from loop.checks.flag import SHOWN, Doubt, Doubtful, check_set, doubts
from loop.checks.learn import Learned
from loop.checks.placeholders import placeholders
from loop.checks.risk import evidence
from loop.config import Config
from loop.records import Flag, Rationale, Risk, Round
from loop.stages.judging import Judging
from loop.stages.looking import Looking
from loop.stages.parts import PIECE, Parts, id_of
from loop.store import rationales, rounds
from loop.store.database import Store

LEARNED, LIKELY = frozenset({"reader", "first_error"}), 0.5
"""Checks that have something to say of every rationale, and the weight from which on it is a flag."""


class Checking:
    """Checks rationales piece by piece; each piece is stored when done."""

    def __init__(self, current: Round, store: Store, parts: Parts, config: Config) -> None:
        self._store, self._parts, self._config = store, parts, config
        self._audited = {query.item_key for query in rounds.queries(store, id_of(current)) if query.audit}
        self._judging = Judging(current, store, parts, config)
        self.say = self._judging.say

    def __call__(self, todo: Sequence[Rationale], looked_at: Looking, learned: Learned) -> None:
        """Check these rationales."""
        with self._parts.progress.bar("rationales are checked", len(todo)) as bar:
            for start in range(0, len(todo), PIECE):
                cases = [learned.knows(case) for case in looked_at(todo[start : start + PIECE])]
                raised = self._parts.cluster.side_by_side(partial(self._raised, learned), cases)
                left = [
                    case for case, some in zip(cases, raised, strict=True) if not self._settled(learned, case, some)
                ]
                objections = self._judging(left, bar)
                found = [
                    (case, [*some, *objections.get(case.rationale.id or 0, ())])
                    for case, some in zip(cases, raised, strict=True)
                ]
                self._keep(found, learned)
                bar.advance(len(cases) - len(left))

    def _raised(self, learned: Learned, case: Doubtful) -> list[Doubt]:
        """The doubts of the checks, and of made-up marks where there are true ones."""
        marks = placeholders(case) if self._config.teacher.redact.on else []
        return [
            *marks,
            *doubts(case, self._config.checks, settled=lambda some: self._settled(learned, case, [*marks, *some])),
        ]

    def _settled(self, learned: Learned, case: Doubtful, some: Sequence[Doubt]) -> bool:
        """Whether no dearer check is needed; audits go through every one."""
        if case.item.key in self._audited:
            return False
        return learned.risk(evidence(some)) >= self._config.checks.settled_risk

    def _keep(self, found: Sequence[tuple[Doubtful, Sequence[Doubt]]], learned: Learned) -> None:
        marks = "placeholders" if self._config.teacher.redact.on else ""
        version = check_set(self._config.checks, self._config.judge.model, marks)
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
