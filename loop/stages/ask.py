"""ASK: the teacher explains the batch within the budget, once more where it was unsure."""

import asyncio
from dataclasses import asdict

from loop import certification
from loop.config import Config, ReviewConfig
from loop.ledger import caps
from loop.records import ConfidenceFit, Item, Round, Stage
from loop.stages.batching import ask_by_batches
from loop.stages.demonstrating import Demonstrating
from loop.stages.looking import review_chance
from loop.stages.parts import Parts, id_of, is_reply, seed_of
from loop.store import asking, batches, confidence, rationales, rounds
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.again import ask_again
from loop.teacher.ask import Asking, Shown, ask
from loop.teacher.confidence import Trust, Verdicted, fit
from loop.teacher.demonstrations import as_shown


def ask_teacher(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Ask for the replies that the store lacks, and move on to CHECK."""
    purse = Purse(store, current.run)
    purse.close_dead_holds()
    purse.cap(caps(config.budget, id_of(current)))
    demonstrating = Demonstrating(store, current.run, lambda: parts.trainer.student(None), config)
    demonstrating.prepare(current, parts)
    trust = trust_of(current, store, config)

    def demonstrations(item: Item) -> Shown:
        return as_shown(demonstrating.shown(item))

    book = batches.RoundBatchBook(store, current.run, id_of(current), config.teacher)
    batched = Asking(book, config.task, config.teacher, id_of(current), demonstrations, trust, demonstrating.has_more)
    ask_by_batches(current, store, parts, batched, book)
    outcome = asyncio.run(
        ask(
            asking.missing(store, id_of(current), config.teacher.samples),
            parts.teacher,
            book,
            config.task,
            config.teacher,
            round_id=id_of(current),
            demonstrations=demonstrations,
            progress=parts.progress,
            trust=trust,
            may_ask_again=demonstrating.has_more,
        )
    )
    outcome.replies += batched.outcome.replies
    outcome.unreadable += batched.outcome.unreadable
    if outcome.unreadable or outcome.gave_up:
        parts.progress.say(
            f"  {outcome.replies} replies can be read, {outcome.unreadable} cannot, {outcome.gave_up} requests were "
            "given up; `preceptor history KEY` says why"
        )
    spent = _ask_again(current, store, parts, config, trust, demonstrating)
    if outcome.budget_spent or spent:
        parts.progress.say("the dollar budget is spent: the round goes on with the replies it has")
    return rounds.enter(store, current, Stage.CHECK)


def _ask_again(
    current: Round, store: Store, parts: Parts, config: Config, trust: Trust, demonstrating: Demonstrating
) -> bool:
    """Ask once more where the first reply was unsure; whether the budget is spent."""
    todo = asking.unsettled(store, id_of(current))
    if not todo:
        return False
    outcome = asyncio.run(
        ask_again(
            todo,
            parts.teacher,
            asking.RoundAskBook(store, current.run, id_of(current), config.teacher),
            config.task,
            config.teacher,
            round_id=id_of(current),
            demonstrations=lambda item: as_shown(demonstrating.more(item)),
            trust=trust,
            progress=parts.progress,
        )
    )
    how = "calibrated on verdicts" if trust.fits else "as stated; too few verdicts to calibrate it"
    parts.progress.say(
        f"  {outcome.asked} unsure replies were asked for again with more demonstrations: {outcome.taken} second ones "
        f"are kept, {outcome.contradicted} contradict the first (confidence {how})"
    )
    return outcome.budget_spent


def trust_of(current: Round, store: Store, config: Config) -> Trust:
    """How far confidence is believed in a round, by the verdicts that were there when it was opened.

    Under a certified threshold it is believed as in the round that was looked at.
    """
    if not (config.teacher.confidence or config.teacher.logprobs):
        return Trust()
    relied_on = certification.threshold_in_force(store, current, config)
    source = current if relied_on is None else rounds.by_id(store, relied_on.round_id)
    known = _verdicts(source, store)
    found = {name: fit(some, seed=seed_of(config, source.number)) for name, some in known.items()}
    fits = {name: each for name, each in found.items() if each is not None}
    rows = [ConfidenceFit(round_id=id_of(current), source=name, **asdict(each)) for name, each in fits.items()]
    confidence.keep(store, rows)
    return Trust(fits, config.teacher.reprompt_below)


def _verdicts(source: Round, store: Store) -> dict[str, list[Verdicted]]:
    """What people said until a round was opened of rationales whose confidence is known, by where that is from."""
    judged = [each for each in rationales.judged(store, source.run, source.opened_at) if is_reply(each.rationale)]
    by = confidence.sources(store, [each.rationale.reply_id or 0 for each in judged])
    bodies = {each.id: rounds.config_of(store, each) for each in rounds.all_rounds(store, source.run)}
    found: dict[str, list[Verdicted]] = {}
    for each in judged:
        said, name = each.rationale.confidence, by.get(each.rationale.reply_id or 0, "")
        if said is not None and name:
            review = ReviewConfig.model_validate(bodies[each.query.round_id]["review"])
            found.setdefault(name, []).append(Verdicted(said, not each.wrong, 1 / review_chance(each, review)))
    return found
