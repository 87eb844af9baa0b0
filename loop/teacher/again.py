"""Asks once more, with a longer prompt, where the teacher's first reply was unsure, and keeps the better of both."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from loop.config import TaskConfig, TeacherConfig
from loop.ports import AskBook, Progress, Teacher
from loop.records import AGAIN, Item, Rationale, Reply
from loop.teacher.ask import Demonstrations, draft_of, rationale_of, reply_row
from loop.teacher.confidence import Trust
from loop.teacher.demonstrations import with_one_less
from loop.teacher.prompt import prompt_of, request_for
from loop.teacher.reply import read
from loop.teacher.send import Received, Sender, Sleep, nobody_is_told


async def ask_again(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Item],
    teacher: Teacher,
    book: AskBook,
    task: TaskConfig,
    config: TeacherConfig,
    *,
    round_id: int,
    demonstrations: Demonstrations,
    progress: Progress,
    sleep: Sleep = asyncio.sleep,
) -> bool:
    """Send the longer prompts for these items and store what comes back; whether the budget sufficed.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    asking = _Again(book, task, config, round_id, demonstrations)
    sender = Sender(teacher, book, config, sleep, nobody_is_told)
    with progress.bar("teacher is asked again", len(todo)) as bar:
        await sender.work(todo, lambda item: asking.ask_for(sender, item), bar)
    return not sender.budget_spent


def better(item: Item, first: Reply, second: Reply | None, task: TaskConfig, trust: Trust) -> tuple[Reply, Rationale]:
    """The reply that is kept, and its rationale, which knows what the other one answered.

    An allowed answer goes before one that is not; then the surer reply is kept, of equally sure ones the first.
    """
    drafts = [(each, draft_of(each, item, task)) for each in (first, second) if each is not None]
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
    """One call of `ask_again`: what its requests share."""

    book: AskBook
    task: TaskConfig
    config: TeacherConfig
    round_id: int
    demonstrations: Demonstrations

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


def _believed(reply: Reply, trust: Trust) -> float:
    return trust.believed(reply.confidence, reply.confidence_by) or 0.0
