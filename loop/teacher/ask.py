"""Ask the teacher for rationales, for many items at once."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from loop.answer import Answer
from loop.config import TaskConfig, TeacherConfig
from loop.ledger import discounted
from loop.ports import AskBook, Completion, Progress, Request, Teacher
from loop.records import Author, Item, Query, Rationale, Reply
from loop.records.teacher import ReplyState
from loop.teacher.confidence import Trust, confidence_of
from loop.teacher.demonstrations import with_one_less
from loop.teacher.prompt import prompt_of, request_for
from loop.teacher.reply import Draft, Unreadable, read
from loop.teacher.send import Received, Sender, Sleep, as_stored

Shown = Sequence[tuple[Item, Sequence[str], Answer]]
Demonstrations = Callable[[Item], Shown]
Todo = tuple[Query, Item, int]
UNTRIED = Trust()
"""Confidence as it comes, and nothing asked again."""


@dataclass
class AskOutcome:
    """What came of asking: readable replies, unreadable ones, and requests that were given up."""

    replies: int = 0
    unreadable: int = 0
    gave_up: int = 0
    budget_spent: bool = False


async def ask(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Todo],
    teacher: Teacher,
    book: AskBook,
    task: TaskConfig,
    config: TeacherConfig,
    *,
    round_id: int,
    demonstrations: Demonstrations,
    progress: Progress,
    trust: Trust = UNTRIED,
    may_ask_again: Callable[[Item], bool] = lambda _: False,
    waits: bool = False,
    sleep: Sleep = asyncio.sleep,
) -> AskOutcome:
    """Ask for every (query, item, sample) and write down what comes back.

    A first reply that is unsure is stored without its rationale where the item may be asked again; with `waits` every
    first reply is, because others are asked for before one of them is kept.

    When this is cancelled, nothing new is sent, and what is under way is settled. What was not asked is left for the
    next call; so is what could not be because the teacher was down or refused everything.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    asking = Asking(book, task, config, round_id, demonstrations, trust, may_ask_again, waits)
    sender = Sender(teacher, book, config, sleep, asking.give_up)
    with progress.bar("teacher is asked", len(todo)) as bar:
        await sender.work(todo, lambda each: asking.ask_for(sender, each), bar)
    asking.outcome.budget_spent = sender.budget_spent
    return asking.outcome


@dataclass
class Asking:
    """What the requests of one round's asking share, whichever way they are sent."""

    book: AskBook
    task: TaskConfig
    config: TeacherConfig
    round_id: int
    demonstrations: Demonstrations
    trust: Trust
    may_ask_again: Callable[[Item], bool]
    waits: bool
    outcome: AskOutcome = field(default_factory=AskOutcome)

    async def ask_for(self, sender: Sender, todo: Todo) -> None:
        """Ask for one reply."""
        _, item, sample = todo
        request = request_for(item, self.task, self.config, self.demonstrations(item), sample)
        purpose = f"ask/{self.round_id}/{item.key}/{sample}"
        await sender.send(request, purpose, lambda received: self.keep(item, received), with_one_less)

    def give_up(self, request: Request, problem: str) -> None:
        """No reply will come."""
        self.outcome.gave_up += 1
        self._note(request, problem)

    def keep(self, item: Item, received: Received) -> None:
        """Settle, and store what came in the same transaction."""
        result = read(received.completion, item, self.task)
        if self.config.batch and received.request.sample == 0:  # what is remembered of it was paid so
            received = replace(received, saved=discounted(received.saved, self.config.batch_discount))
        reply = reply_row(self.round_id, received, result)
        rationale = None
        if isinstance(result, Draft) and not self._waits(item, reply):
            rationale = rationale_of(item, reply, result, self.trust)
        self.book.keep(received.charge_id, received.micro_usd, prompt_of(received.request), reply, rationale)
        self.outcome.replies += isinstance(result, Draft)
        self.outcome.unreadable += not isinstance(result, Draft)
        if reply.problem is not None and self.config.samples == 1:
            self._note(received.request, reply.problem)

    def _waits(self, item: Item, reply: Reply) -> bool:
        """Whether the item is asked once more before a rationale is stored; further samples never are."""
        if reply.sample != 0:
            return False
        low = self.trust.is_low(reply.confidence, reply.confidence_by)
        return self.waits or (low and self.may_ask_again(item))

    def _note(self, request: Request, problem: str) -> None:
        """Why the item gets no rationale to review; further samples are only compared with, so it gets one without."""
        if request.sample == 0:
            self.book.give_up(request.item_key, problem)


def reply_row(round_id: int, received: Received, result: Draft | Unreadable) -> Reply:
    """What came for a request, and how it was read."""
    completion, request = received.completion, received.request
    sure, by = confidence_of(completion, result) if isinstance(result, Draft) else (None, "")
    return Reply(
        round_id=round_id,
        item_key=request.item_key,
        sample=request.sample,
        teacher=request.model,
        **as_stored(received),
        state=ReplyState.READABLE if isinstance(result, Draft) else ReplyState.UNREADABLE,
        problem=None if isinstance(result, Draft) else result.problem,
        confidence=sure,
        confidence_by=by,
        remembered=received.remembered,
        saved=received.saved,
    )


def draft_of(reply: Reply, item: Item, task: TaskConfig) -> Draft | None:
    """What a stored reply says, where it can be read."""
    stored = Completion(reply.text, reply.model, reply.finish_reason, reply.input_tokens, reply.output_tokens)
    found = read(stored, item, task)
    return found if isinstance(found, Draft) else None


def rationale_of(item: Item, reply: Reply, draft: Draft, trust: Trust) -> Rationale:
    """The rationale that a reply holds."""
    return Rationale(
        item_key=item.key,
        round_id=reply.round_id,
        author=Author.TEACHER,
        sample=max(0, reply.sample),
        steps=list(draft.steps),
        answer=None if draft.answer is None else draft.answer.canonical,
        stated=draft.stated,
        teacher=reply.teacher,
        confidence=reply.confidence,
        confidence_by=reply.confidence_by,
        calibrated=trust.calibrated(reply.confidence, reply.confidence_by),
        version=reply.version,
        reply_id=reply.id,
    )
