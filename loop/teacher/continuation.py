"""The teacher goes on from steps that a person put right: it keeps them and writes what follows anew.

The request is that for the item, with the settled steps between fence lines behind it. No worked items are shown: the
settled steps show the form.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from loop.answer import number_steps, split_steps
from loop.config import TaskConfig, TeacherConfig
from loop.ports import AskBook, Progress, Request, Teacher
from loop.records import Item, Rationale
from loop.redaction import Hider, with_hidden
from loop.teacher.ask import UNTRIED, AskOutcome, rationale_of, reply_row
from loop.teacher.prompt import fenced, prompt_of, request_for
from loop.teacher.reply import Draft, read
from loop.teacher.send import Received, Sender, Sleep

SETTLED = re.compile(r"^Steps so far:\n(~{3,})\n(.*)\n\1\n[^~]*\Z", re.MULTILINE | re.DOTALL)
Todo = tuple[Rationale, Item]
"""A corrected prefix and its item."""


async def go_on(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Todo],
    teacher: Teacher,
    book: AskBook,
    task: TaskConfig,
    config: TeacherConfig,
    *,
    round_id: int,
    progress: Progress,
    sleep: Sleep = asyncio.sleep,
) -> AskOutcome:
    """Ask the teacher to go on from each prefix, and write down what comes back as in `loop.teacher.ask.ask`.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    continuing = _Continuing(book, task, config, round_id)
    sender = Sender(teacher, book, config, sleep, continuing.give_up)
    with progress.bar("teacher goes on from corrected steps", len(todo)) as bar:
        await sender.work(todo, lambda each: continuing.ask_for(sender, each), bar)
    continuing.outcome.budget_spent = sender.budget_spent
    return continuing.outcome


def continuation_request(item: Item, prefix: Sequence[str], task: TaskConfig, teacher: TeacherConfig) -> Request:
    """The request for the steps behind a prefix that is shorter than `task.max_steps`."""
    left = task.model_copy(update={"max_steps": task.max_steps - len(prefix)})
    asked = request_for(item, left, teacher, (), 0)
    hider = Hider(teacher.redact, asked.hidden)
    lines = [
        asked.messages[-1]["content"],
        fenced("Steps so far", number_steps([*map(hider.text, prefix)]), item.text),
        f"These steps are settled: do not change or repeat them. Go on with step {len(prefix) + 1}; "
        "reply with the steps that follow and the answer only.",
    ]
    last = {"role": "user", "content": "\n".join(lines)}
    return with_hidden(replace(asked, messages=(*asked.messages[:-1], last)), hider)


def settled_steps(message: str) -> list[str]:
    """The settled steps in a message that `continuation_request` wrote; empty otherwise."""
    found = SETTLED.search(message)
    return split_steps(found[2]) if found else []


@dataclass
class _Continuing:
    """One call of `go_on`: what its requests share."""

    book: AskBook
    task: TaskConfig
    config: TeacherConfig
    round_id: int
    outcome: AskOutcome = field(default_factory=AskOutcome)

    async def ask_for(self, sender: Sender, todo: Todo) -> None:
        """Ask for what follows one prefix."""
        prefix, item = todo
        request = continuation_request(item, prefix.steps, self.task, self.config)
        purpose = f"continue/{self.round_id}/{item.key}/{prefix.version}"
        await sender.send(request, purpose, lambda received: self._keep(prefix, item, received))

    def give_up(self, request: Request, problem: str) -> None:
        """No reply will come."""
        self.outcome.gave_up += 1
        self.book.give_up(request.item_key, problem)

    def _keep(self, prefix: Rationale, item: Item, received: Received) -> None:
        """Settle, and store what came in the same transaction."""
        result = read(received.completion, item, self.task, prefix=prefix.steps)
        reply = reply_row(self.round_id, received, result)
        reply.version = prefix.version + 1
        rationale = rationale_of(item, reply, result, UNTRIED) if isinstance(result, Draft) else None
        if rationale is not None:
            rationale.supersedes = prefix.id
        self.book.keep(received.charge_id, received.micro_usd, prompt_of(received.request), reply, rationale)
        self.outcome.replies += rationale is not None
        self.outcome.unreadable += rationale is None
        if reply.problem is not None:
            self.book.give_up(item.key, reply.problem)
