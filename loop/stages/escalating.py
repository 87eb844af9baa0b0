"""Within ASK: doubtful rationales go on to stronger teachers, where that is worth the price."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from loop import certification
from loop.checks.doubt import Doubtful
from loop.checks.flag import doubts
from loop.checks.risk import PRIOR, RiskModel, risk
from loop.config import Config, StrongerConfig
from loop.ports import Teacher
from loop.records import STRONGER, Item, Reply, Round, Split
from loop.stages.checking import is_shown
from loop.stages.looking import Looking, verdicted
from loop.stages.parts import Parts, id_of
from loop.store import asking, rationales, rounds
from loop.store.database import Store
from loop.teacher.ask import Shown
from loop.teacher.confidence import Trust
from loop.teacher.escalation import escalated, is_worth_it, share_right, worth_of_a_right_one
from loop.teacher.further import ask_further
from loop.teacher.prompt import request_for, worst_case
from loop.teacher.send import BYTES_PER_TOKEN
from loop.teacher.settle import settled


class Escalating:
    """Asks one stronger teacher after another about what is doubtful still.

    How likely a rationale is wrong goes by the checks that need no student, and by the risk model of the last round
    that had one; verdicts count that were there when the round was opened. Under a certified threshold both stay as in
    the round that was looked at.

    Raises:
        UnknownPrice: a stronger teacher's price is not known; nothing was asked yet.
    """

    def __init__(self, current: Round, store: Store, parts: Parts, config: Config, trust: Trust) -> None:
        self._current, self._store, self._parts, self._config, self._trust = current, store, parts, config, trust
        blank = Item(key="", question="", split=Split.POOL, text_hash="")
        for endpoint, each in self._teachers():
            worst_case(request_for(blank, config.task, each, (), 0), endpoint.price)

    def __call__(self, shown: Callable[[Item], Shown]) -> bool:
        """Whether the budget is spent."""
        spent = False
        for level, (endpoint, each) in enumerate(self._teachers()):
            todo = self._worth_it(level, endpoint, each, shown)
            if todo:
                self._parts.progress.say(f"  {len(todo)} doubtful rationales go to {each.model}")
                spent |= not asyncio.run(
                    ask_further(
                        todo,
                        endpoint,
                        asking.RoundAskBook(self._store, self._current.run, id_of(self._current), each),
                        self._config.task,
                        each,
                        escalated(level, each.model, id_of(self._current), shown),
                        progress=self._parts.progress,
                    )
                )
        return spent

    def _teachers(self) -> list[tuple[Teacher, StrongerConfig]]:
        return list(zip(self._parts.stronger, self._config.teacher.stronger, strict=True))

    def _worth_it(
        self, level: int, endpoint: Teacher, config: StrongerConfig, shown: Callable[[Item], Shown]
    ) -> list[Item]:
        """The items to be asked at a level that was not asked about them yet."""
        waiting = asking.waiting(self._store, id_of(self._current))
        open_ = [each for each in waiting if STRONGER - level not in {reply.sample for reply in each[1]}]
        worth = worth_of_a_right_one(self._config.review.minutes_per_review, self._config.budget)
        then, model = self._share_right(config), self._risk_model()
        found = []
        for (item, replies), case in zip(open_, self._cases(open_), strict=True):
            raised = doubts(case, self._config.checks)
            request = request_for(item, self._config.task, config, shown(item), 0)
            size = sum(len(message["content"].encode()) for message in request.messages)
            longest = max(each.output_tokens for each in replies)
            price = endpoint.price(request, input_tokens=size // BYTES_PER_TOKEN, output_tokens=longest)
            flagged = any(is_shown(doubt) for doubt in raised)
            if flagged and is_worth_it(1 - risk(raised, model), then, worth, price):
                found.append(item)
        return found

    def _cases(self, waiting: Sequence[tuple[Item, Sequence[Reply]]]) -> list[Doubtful]:
        """Each item's rationale as it would be kept now, as the checks look at it."""
        rows = [settled(item, replies, self._config.task, self._trust) for item, replies in waiting]
        looked_at = Looking(self._current, self._store, None, self._config)([kept for kept, *_ in rows])
        return [replace(case, siblings=tuple(rest)) for case, (_, *rest) in zip(looked_at, rows, strict=True)]

    def _share_right(self, config: StrongerConfig) -> float:
        said = [said for row, said in verdicted(self._source(), self._store) if row.teacher == config.model]
        return share_right(config.expected_right, said)

    def _risk_model(self) -> RiskModel:
        """The risk model of the newest round before this one; the prior before any verdict."""
        past = [
            each for each in rounds.all_rounds(self._store, self._current.run) if each.number < self._source().number
        ]
        fits = [fit for each in past if (fit := rationales.risk_fit(self._store, id_of(each))) is not None]
        return RiskModel(fits[-1].base, fits[-1].weights, fits[-1].reviewed) if fits else PRIOR

    def _source(self) -> Round:
        """The round as of which everything is known."""
        relied_on = certification.threshold_in_force(self._store, self._current, self._config)
        return self._current if relied_on is None else rounds.by_id(self._store, relied_on.round_id)
