"""Ask the teacher for rationales, for many items at once."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from loop.answer import Answer
from loop.config import TaskConfig, TeacherConfig
from loop.ports import AskBook, Progress, Request, Teacher
from loop.records import Author, Item, Query, Rationale, Reply
from loop.records.teacher import ReplyState
from loop.teacher.prompt import prompt_of, request_for
from loop.teacher.reply import Draft, read, storable
from loop.teacher.send import LONGEST_STORED, Received, Sender, Sleep

Demonstrations = Callable[[Item], Sequence[tuple[Item, Sequence[str], Answer]]]
Todo = tuple[Query, Item, int]


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
    sleep: Sleep = asyncio.sleep,
) -> AskOutcome:
    """Ask for every (query, item, sample) and write down what comes back.

    When this is cancelled, nothing new is sent, and what is under way is settled. What was not asked is left for the
    next call; so is what could not be because the teacher was down or refused everything.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    asking = _Asking(book, task, config, round_id, demonstrations)
    sender = Sender(teacher, book, config, sleep, asking.give_up)
    with progress.bar("teacher is asked", len(todo)) as bar:
        await sender.work(todo, lambda each: asking.ask_for(sender, each), bar)
    asking.outcome.budget_spent = sender.budget_spent
    return asking.outcome


@dataclass
class _Asking:
    """One call of `ask`: what its requests share."""

    book: AskBook
    task: TaskConfig
    config: TeacherConfig
    round_id: int
    demonstrations: Demonstrations
    outcome: AskOutcome = field(default_factory=AskOutcome)

    async def ask_for(self, sender: Sender, todo: Todo) -> None:
        """Ask for one reply."""
        _, item, sample = todo
        request = request_for(item, self.task, self.config, self.demonstrations(item), sample)
        purpose = f"ask/{self.round_id}/{item.key}/{sample}"
        await sender.send(request, purpose, lambda received: self._keep(request, item, received))

    def give_up(self, request: Request, problem: str) -> None:
        """No reply will come."""
        self.outcome.gave_up += 1
        self._note(request, problem)

    def _keep(self, request: Request, item: Item, received: Received) -> None:
        """Settle, and store what came in the same transaction."""
        completion = received.completion
        result = read(completion, item, self.task)
        prompt = prompt_of(request)
        reply = Reply(
            round_id=self.round_id,
            item_key=item.key,
            sample=request.sample,
            prompt_hash=prompt.hash,
            charge_id=received.charge_id,
            model=storable(completion.model),
            text=storable(completion.text[:LONGEST_STORED]),
            finish_reason=storable(completion.finish_reason),
            input_tokens=received.input_tokens,
            output_tokens=received.output_tokens,
            state=ReplyState.READABLE if isinstance(result, Draft) else ReplyState.UNREADABLE,
            problem=None if isinstance(result, Draft) else result.problem,
            remembered=received.remembered,
            saved=received.saved,
            created_at=datetime.now(UTC),
        )
        rationale = self._rationale(item, request.sample, result) if isinstance(result, Draft) else None
        self.book.keep(received.charge_id, received.micro_usd, prompt, reply, rationale)
        self.outcome.replies += rationale is not None
        self.outcome.unreadable += rationale is None
        if reply.problem is not None:
            self._note(request, reply.problem)

    def _rationale(self, item: Item, sample: int, draft: Draft) -> Rationale:
        return Rationale(
            item_key=item.key,
            round_id=self.round_id,
            author=Author.TEACHER,
            sample=sample,
            steps=list(draft.steps),
            answer=None if draft.answer is None else draft.answer.canonical,
            stated=draft.stated,
            confidence=draft.confidence,
        )

    def _note(self, request: Request, problem: str) -> None:
        """Why the item gets no rationale to review; further samples are only compared with, so it gets one without."""
        if request.sample == 0:
            self.book.give_up(request.item_key, problem)
