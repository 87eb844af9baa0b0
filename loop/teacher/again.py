"""Asks once more, with a longer prompt, where the teacher's first reply was unsure, and keeps the better of both."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from loop.config import TaskConfig, TeacherConfig
from loop.ports import AskBook, Completion, Progress, Teacher
from loop.records import AGAIN, Item, Rationale, Reply
from loop.teacher.ask import Demonstrations, rationale_of, reply_row
from loop.teacher.confidence import Trust
from loop.teacher.demonstrations import with_one_less
from loop.teacher.prompt import prompt_of, request_for
from loop.teacher.reply import Draft, read
from loop.teacher.send import Received, Sender, Sleep, nobody_is_told

Unsettled = tuple[Item, Reply, Reply | None]
"""An item whose first reply was unsure, with its second where that came already."""


@dataclass
class AgainOutcome:
    """What came of asking again: items that were, replies that answer otherwise, and second replies that were taken."""

    asked: int = 0
    contradicted: int = 0
    taken: int = 0
    budget_spent: bool = False


async def ask_again(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Unsettled],
    teacher: Teacher,
    book: AskBook,
    task: TaskConfig,
    config: TeacherConfig,
    *,
    round_id: int,
    demonstrations: Demonstrations,
    trust: Trust,
    progress: Progress,
    sleep: Sleep = asyncio.sleep,
) -> AgainOutcome:
    """Send the longer prompts whose replies the store lacks, then store a rationale for every item.

    Where no second reply comes, the first one stands. What is interrupted is left for the next call.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    asking = _Again(book, task, config, round_id, demonstrations, {item.key: reply for item, _, reply in todo if reply})
    sender = Sender(teacher, book, config, sleep, nobody_is_told)
    waiting = [item for item, _, second in todo if second is None]
    with progress.bar("teacher is asked again", len(waiting)) as bar:
        await sender.work(waiting, lambda item: asking.ask_for(sender, item), bar)
    outcome = AgainOutcome(asked=len(asking.seconds), budget_spent=sender.budget_spent)
    for item, first, _ in todo:
        kept, rationale = better(item, first, asking.seconds.get(item.key), task, trust)
        outcome.contradicted += rationale.other is not None and rationale.other != rationale.stated
        outcome.taken += kept.sample == AGAIN
        book.settle_on(rationale)
    return outcome


def better(item: Item, first: Reply, second: Reply | None, task: TaskConfig, trust: Trust) -> tuple[Reply, Rationale]:
    """The reply that is kept, and its rationale, which knows what the other one answered.

    An allowed answer goes before one that is not; then the surer reply is kept, of equally sure ones the first.
    """
    drafts = [(each, _draft(each, item, task)) for each in (first, second) if each is not None]
    usable = [(reply, draft) for reply, draft in drafts if draft is not None]
    ranked = sorted(usable, key=lambda each: (each[1].answer is None, -_believed(each[0], trust)))
    reply, draft = ranked[0]
    rationale = rationale_of(item, reply, draft, trust)
    if len(ranked) > 1:
        same = draft.answer is not None and ranked[1][1].answer == draft.answer
        rationale.other = draft.stated if same else ranked[1][1].stated
    return reply, rationale


@dataclass
class _Again:
    """One call of `ask_again`: what its requests share, and the second replies so far, by item."""

    book: AskBook
    task: TaskConfig
    config: TeacherConfig
    round_id: int
    demonstrations: Demonstrations
    seconds: dict[str, Reply] = field(default_factory=dict)

    async def ask_for(self, sender: Sender, item: Item) -> None:
        """Ask for one item's second reply."""
        request = request_for(item, self.task, self.config, self.demonstrations(item), 0)
        purpose = f"ask/{self.round_id}/{item.key}/again"
        await sender.send(request, purpose, lambda received: self._keep(item, received), with_one_less)

    def _keep(self, item: Item, received: Received) -> None:
        """Settle, and store the reply in the same transaction; its rationale waits until both can be compared."""
        reply = reply_row(self.round_id, received, read(received.completion, item, self.task))
        reply.sample = AGAIN
        self.book.keep(received.charge_id, received.micro_usd, prompt_of(received.request), reply, None)
        self.seconds[item.key] = reply


def _draft(reply: Reply, item: Item, task: TaskConfig) -> Draft | None:
    """What a stored reply says, where it can be read."""
    stored = Completion(reply.text, reply.model, reply.finish_reason, reply.input_tokens, reply.output_tokens)
    found = read(stored, item, task)
    return found if isinstance(found, Draft) else None


def _believed(reply: Reply, trust: Trust) -> float:
    return trust.believed(reply.confidence, reply.confidence_by) or 0.0
