"""ASK: the teacher explains the batch within the budget; where it is unsure it is asked more, or a stronger one is."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from loop import certification
from loop.config import Config
from loop.records import AGAIN, STRONGER, ConfidenceFit, Item, Reply, Round, Stage
from loop.stages.batching import ask_by_batches
from loop.stages.demonstrating import Demonstrating
from loop.stages.escalating import Escalating
from loop.stages.looking import verdicted
from loop.stages.parts import Parts, id_of, seed_of
from loop.stages.revising import revise_explanations
from loop.store import asking, batches, confidence, rounds
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.again import again
from loop.teacher.ask import Asking, Shown, ask
from loop.teacher.confidence import Trust, Verdicted, fit
from loop.teacher.demonstrations import as_shown
from loop.teacher.further import ask_further
from loop.teacher.settle import settled
from loop.teacher.vote import copies, vote


def ask_teacher(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Ask for the replies that the store lacks, and move on to CHECK."""
    Purse(store, current.run).close_dead_holds()
    demonstrating = Demonstrating(store, current.run, lambda: parts.trainer.student(None), config)
    demonstrating.prepare(current, parts)
    trust = trust_of(current, store, config)
    escalating = Escalating(current, store, parts, config, trust)
    spent = revise_explanations(current, store, parts, config)
    if _UntilSettled(current, store, parts, config, trust, demonstrating)(escalating) or spent:
        parts.progress.say("the dollar budget is spent: the round goes on with the replies it has")
    return rounds.enter(store, current, Stage.CHECK)


class _UntilSettled:
    """Asks, and asks more, until every item of the round has its rationale or the reason why it has none."""

    def __init__(
        self, current: Round, store: Store, parts: Parts, config: Config, trust: Trust, demonstrating: Demonstrating
    ) -> None:
        self._current, self._store, self._parts, self._config = current, store, parts, config
        self._trust, self._demonstrating = trust, demonstrating
        self._book = batches.RoundBatchBook(store, current.run, id_of(current), config.teacher)

    def __call__(self, escalating: Escalating) -> bool:
        """Whether the budget is spent."""
        spent = self._ask()
        spent |= self._vote() if self._config.teacher.samples > 1 else self._ask_again()
        spent |= escalating(self._shown)
        self._settle()
        return spent

    def _shown(self, item: Item) -> Shown:
        return as_shown(self._demonstrating.shown(item))

    def _ask(self) -> bool:
        """Ask for every item's first reply; whether the budget is spent."""
        teacher, more = self._config.teacher, self._demonstrating.has_more
        waits = teacher.samples > 1 or bool(teacher.stronger)
        batched = Asking(
            self._book, self._config.task, teacher, id_of(self._current), self._shown, self._trust, more, waits
        )
        ask_by_batches(self._current, self._store, self._parts, batched, self._book)
        outcome = asyncio.run(
            ask(
                asking.missing(self._store, id_of(self._current), 1),
                self._parts.teacher,
                self._book,
                self._config.task,
                teacher,
                round_id=id_of(self._current),
                demonstrations=self._shown,
                progress=self._parts.progress,
                trust=self._trust,
                may_ask_again=more,
                waits=waits,
            )
        )
        outcome.replies += batched.outcome.replies
        outcome.unreadable += batched.outcome.unreadable
        if outcome.unreadable or outcome.gave_up:
            self._parts.progress.say(
                f"  {outcome.replies} replies can be read, {outcome.unreadable} cannot, {outcome.gave_up} requests "
                "were given up; `preceptor history KEY` says why"
            )
        return outcome.budget_spent

    def _vote(self) -> bool:
        """Ask for further samples until each vote is settled; whether the budget is spent."""
        todo = asking.voting(self._store, id_of(self._current))
        if not todo:
            return False
        outcome = asyncio.run(
            vote(
                todo,
                self._parts.teacher,
                self._book,
                self._config.task,
                self._config.teacher,
                round_id=id_of(self._current),
                demonstrations=self._shown,
                progress=self._parts.progress,
            )
        )
        self._parts.progress.say(
            f"  vote: {outcome.samples} further samples of {outcome.items} items; {outcome.early} votes were settled "
            f"before {self._config.teacher.samples} samples were asked"
        )
        after = asking.voting(self._store, id_of(self._current))
        self._give_up_unread(after)
        if copies(after):
            self._parts.progress.say(
                "  all samples of an item are the same to the letter, for every item: the endpoint may not know "
                "`temperature` or `seed`, and such a vote says nothing; try `preceptor doctor --probe`"
            )
        return outcome.budget_spent

    def _give_up_unread(self, voted: Sequence[tuple[Item, Sequence[Reply]]]) -> None:
        """Note why items have no rationale of which no sample can be read."""
        for item, replies in voted:
            if all(reply.problem is not None for reply in replies):
                self._book.give_up(item.key, f"no sample can be read; the last: {replies[-1].problem}")

    def _ask_again(self) -> bool:
        """Ask once more where the first reply was unsure; whether the budget is spent."""
        waiting = asking.waiting(self._store, id_of(self._current))
        todo = [
            item
            for item, replies in waiting
            if self._trust.is_low(replies[0].confidence, replies[0].confidence_by)
            and self._demonstrating.has_more(item)
            and AGAIN not in {reply.sample for reply in replies}
        ]
        if not todo:
            return False
        sufficed = asyncio.run(
            ask_further(
                todo,
                self._parts.teacher,
                self._book,
                self._config.task,
                self._config.teacher,
                again(id_of(self._current), lambda item: as_shown(self._demonstrating.more(item))),
                progress=self._parts.progress,
            )
        )
        return not sufficed

    def _settle(self) -> None:
        """Store the rationales of all items that wait for one, and say what came of asking more."""
        came: Counter[str] = Counter()
        for item, replies in asking.waiting(self._store, id_of(self._current)):
            rows = settled(item, replies, self._config.task, self._trust)
            kept = next(each for each in replies if each.id == rows[0].reply_id)
            asked = {each.sample for each in replies}
            came["again"] += AGAIN in asked
            came["taken"] += kept.sample == AGAIN
            came["contradicted"] += rows[0].other is not None and rows[0].other != rows[0].stated
            came["escalated"] += min(asked) <= STRONGER
            came["stronger"] += kept.sample <= STRONGER
            self._book.settle_on(rows)
        self._say(came)

    def _say(self, came: Mapping[str, int]) -> None:
        say, how = self._parts.progress.say, "calibrated on verdicts"
        if came["again"]:
            how = how if self._trust.fits else "as stated; too few verdicts to calibrate it"
            say(
                f"  {came['again']} unsure replies were asked for again with more demonstrations: {came['taken']} "
                f"second ones are kept, {came['contradicted']} contradict the first (confidence {how})"
            )
        if came["escalated"]:
            say(f"  {came['escalated']} items went to a stronger teacher, whose rationale {came['stronger']} keep")


def trust_of(current: Round, store: Store, config: Config) -> Trust:
    """How far confidence is believed in a round, by the verdicts that were there when it was opened.

    Under a certified threshold it is believed as in the round that was looked at.
    """
    if not (config.teacher.confidence or config.teacher.logprobs or config.teacher.samples > 1):
        return Trust()
    relied_on = certification.threshold_in_force(store, current, config)
    source = current if relied_on is None else rounds.by_id(store, relied_on.round_id)
    known: dict[str, list[Verdicted]] = {}
    for rationale, said in verdicted(source, store):
        if rationale.confidence is not None and rationale.confidence_by:
            known.setdefault(rationale.confidence_by, []).append(said)
    found = {name: fit(some, seed=seed_of(config, source.number)) for name, some in known.items()}
    fits = {name: each for name, each in found.items() if each is not None}
    rows = [ConfidenceFit(round_id=id_of(current), source=name, **asdict(each)) for name, each in fits.items()]
    confidence.keep(store, rows)
    return Trust(fits, config.teacher.reprompt_below)
