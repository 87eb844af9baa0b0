"""ASK: the teacher explains the batch within the budget."""

import asyncio
from collections.abc import Sequence

from loop.answer import Answer
from loop.config import Config
from loop.ledger import caps
from loop.records import DecisionKind, Item, Round, Stage
from loop.stages.parts import Parts, id_of
from loop.store import asking, decisions, rounds
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.ask import ask
from loop.teacher.demonstrations import nearest


def ask_teacher(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Ask for the replies that the store lacks, and move on to CHECK."""
    purse = Purse(store, current.run)
    purse.close_dead_holds()
    purse.cap(caps(config.budget, id_of(current)))
    decided = [
        (item, tuple(rationale.steps), rationale.parsed)
        for item, rationale, decision in decisions.decided(store, current.run)
        if decision.kind is DecisionKind.GOLD and rationale.parsed is not None
    ]

    def demonstrations(item: Item) -> Sequence[tuple[Item, tuple[str, ...], Answer]]:
        return nearest(item, decided, config.teacher.demonstrations)

    outcome = asyncio.run(
        ask(
            asking.missing(store, id_of(current), config.teacher.samples),
            parts.teacher,
            asking.RoundAskBook(store, current.run, id_of(current), config.teacher),
            config.task,
            config.teacher,
            round_id=id_of(current),
            demonstrations=demonstrations,
            progress=parts.progress,
        )
    )
    if outcome.unreadable or outcome.gave_up:
        parts.progress.say(
            f"  {outcome.replies} replies can be read, {outcome.unreadable} cannot, {outcome.gave_up} requests were "
            "given up; `preceptor history KEY` says why"
        )
    if outcome.budget_spent:
        parts.progress.say("the dollar budget is spent: the round goes on with the replies it has")
    return rounds.enter(store, current, Stage.CHECK)
