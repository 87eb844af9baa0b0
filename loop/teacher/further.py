"""Asks further about items whose first reply is stored already; which of their replies is kept is decided later."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loop.config import AskedConfig, TaskConfig
from loop.ports import AskBook, Progress, Teacher
from loop.records import Item
from loop.teacher.ask import Demonstrations, reply_row
from loop.teacher.demonstrations import with_one_less
from loop.teacher.prompt import prompt_of, request_for
from loop.teacher.reply import read
from loop.teacher.send import Received, Sender, nobody_is_told


@dataclass(frozen=True)
class Further:
    """One more reply about each of some items."""

    sample: int
    """What the replies are stored as."""
    purpose: Callable[[str], str]
    """What is paid for, by the item's key."""
    said: str
    """What the progress bar says."""
    round_id: int
    demonstrations: Demonstrations


async def ask_further(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Item],
    teacher: Teacher,
    book: AskBook,
    task: TaskConfig,
    config: AskedConfig,
    further: Further,
    *,
    progress: Progress,
) -> bool:
    """Ask about these items and store what comes back; whether the budget sufficed.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    sender = Sender(teacher, book, config, asyncio.sleep, nobody_is_told)

    async def ask_for(item: Item) -> None:
        def keep(received: Received) -> None:
            reply = reply_row(further.round_id, received, read(received.completion, item, task))
            reply.sample = further.sample
            book.keep(received.charge_id, received.micro_usd, prompt_of(received.request), reply, None)

        request = request_for(item, task, config, further.demonstrations(item), 0)
        await sender.send(request, further.purpose(item.key), keep, with_one_less)

    with progress.bar(further.said, len(todo)) as bar:
        await sender.work(todo, ask_for, bar)
    return not sender.budget_spent
