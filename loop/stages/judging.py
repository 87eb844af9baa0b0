"""The judge reads what the other checks left open."""

import asyncio
from collections.abc import Sequence

from loop.checks import judge as judge_check
from loop.checks.flag import Doubt, Doubtful
from loop.config import Config
from loop.ports import Bar, Teacher
from loop.records import Judgement, Round
from loop.stages.parts import Parts, id_of
from loop.store import judgements
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.judge import JudgeOutcome, judge


class Judging:
    """Has the judge, where there is one, read what the other checks left open; each step it judged is stored."""

    def __init__(self, current: Round, store: Store, parts: Parts, config: Config) -> None:
        self._store, self._parts, self._config, self._round_id = store, parts, config, id_of(current)
        self._book = judgements.RunJudgeBook(store, current.run, id_of(current), config.judge)
        self._outcome = JudgeOutcome()
        if parts.judge is not None:
            Purse(store, current.run).close_dead_holds()

    def __call__(self, cases: Sequence[Doubtful], bar: Bar) -> dict[int, list[Doubt]]:
        """What the judge objects to, by rationale."""
        if self._parts.judge is None or self._outcome.budget_spent:
            bar.advance(len(cases))
        else:
            self._outcome += asyncio.run(self._ask(self._parts.judge, cases, bar))
        said = {} if self._parts.judge is None else self._said(cases)
        return {number: judge_check.objections(each) for number, each in said.items()}

    async def _ask(self, endpoint: Teacher, cases: Sequence[Doubtful], bar: Bar) -> JudgeOutcome:
        said, config = self._said(cases), self._config
        todo = [(case.item, case.rationale, said.get(case.rationale.id or 0, ())) for case in cases]
        return await judge(todo, endpoint, self._book, config.task, config.judge, round_id=self._round_id, bar=bar)

    def _said(self, cases: Sequence[Doubtful]) -> dict[int, list[Judgement]]:
        return judgements.of_rationales(self._store, [case.rationale.id or 0 for case in cases])

    def say(self) -> None:
        """What the judge did and what it could not do."""
        outcome, progress = self._outcome, self._parts.progress
        if self._parts.judge is not None:
            progress.say(
                f"  judge: {outcome.steps} steps read, {outcome.unreadable} replies cannot be read, {outcome.gave_up} "
                "requests were given up"
            )
        if outcome.budget_spent:
            progress.say("the dollar budget is spent: the other rationales are checked without the judge")
