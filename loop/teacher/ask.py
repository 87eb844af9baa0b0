"""Ask the teacher: reserve, send, settle, for many items at once.

No request is sent before its worst-case price is reserved, each attempt for itself. A reply is settled and stored in
one go. A hold whose request certainly never reached the endpoint is given back; one whose fate is unknown is charged
at worst case.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from loop.answer import Answer
from loop.config import TaskConfig, TeacherConfig
from loop.errors import BudgetSpent, ItemRefused, TeacherBusy, TeacherDown, TeacherRefused
from loop.ports import AskBook, Bar, Completion, Progress, Request, Teacher
from loop.records import Author, Item, Query, Rationale, Reply
from loop.records.teacher import ReplyState
from loop.teacher.prompt import most_input_tokens, prompt_of, request_for, worst_case
from loop.teacher.reply import Draft, read, storable

FIRST_PAUSE = 1.0
"""Seconds before the second attempt; doubled before each further one."""
LONGEST_PAUSE = 120.0
"""No pause is longer, whatever the endpoint asks for."""
LOST_IN_A_ROW = 5
"""So many requests without any reply are the teacher's fault and not that of their items."""
LONGEST_STORED = 200_000
"""Characters of a reply that are kept."""

Sleep = Callable[[float], Awaitable[object]]
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

    When this is cancelled, nothing new is sent; what is under way has `config.timeout` seconds to come back and be
    settled. What was not asked is left for the next call.

    Raises:
        TeacherDown: the endpoint cannot be reached, or request after request fails; these items are left as well.
        TeacherRefused: the endpoint refuses what every request has in common (key, model, form).
        UnknownPrice: the teacher's price is not known.
    """
    asking = _Asking(teacher, book, task, config, round_id, demonstrations, sleep, iter(todo))
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(teacher, contextlib.AbstractAsyncContextManager):
            await stack.enter_async_context(teacher)
        with progress.bar("teacher is asked", len(todo)) as bar:
            workers = [asyncio.create_task(asking.work(bar)) for _ in range(min(config.concurrency, len(todo)))]
            await _finish(workers, asking, config.timeout)
    asking.note_lost()
    return asking.outcome


async def _finish(workers: Sequence[asyncio.Task[None]], asking: "_Asking", patience: float) -> None:
    """Wait for the workers; when one fails or we are cancelled, let the others settle what is under way."""
    if not workers:
        return
    try:
        await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        asking.stop()
        await asyncio.wait(workers, timeout=patience)
    except asyncio.CancelledError:
        asking.stop()
        await asyncio.wait(workers, timeout=patience)
        raise
    finally:
        for worker in workers:
            worker.cancel()
        failures = await asyncio.gather(*workers, return_exceptions=True)
    for failure in failures:
        if isinstance(failure, Exception):
            raise failure


@dataclass
class _Asking:
    """One call of `ask`: what its workers share."""

    teacher: Teacher
    book: AskBook
    task: TaskConfig
    config: TeacherConfig
    round_id: int
    demonstrations: Demonstrations
    sleep: Sleep
    todo: Iterator[Todo]
    outcome: AskOutcome = field(default_factory=AskOutcome)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    lost: list[tuple[Item, int, str]] = field(default_factory=list)
    """Item, sample and problem of requests that failed since the last completion."""
    holds: int = 0
    """Requests under way."""
    hold_closed: asyncio.Event = field(default_factory=asyncio.Event)
    next_in_line: asyncio.Lock = field(default_factory=asyncio.Lock)

    def stop(self) -> None:
        """Send nothing new."""
        self.stopped.set()
        self.hold_closed.set()

    async def work(self, bar: Bar) -> None:
        """Take one item after another until none is left."""
        for _, item, sample in self.todo:
            if self.stopped.is_set():
                return
            await self._ask_for(item, sample)
            bar.advance()

    async def _ask_for(self, item: Item, sample: int) -> None:
        """All attempts for one reply."""
        request = request_for(item, self.task, self.config, self.demonstrations(item), sample)
        try:
            for attempt in range(self.config.attempts):
                try:
                    if await self._attempt(request, item, attempt):
                        return
                except TeacherBusy as busy:
                    if attempt + 1 == self.config.attempts:
                        self._lose(item, sample, busy)
                    else:
                        await self._pause(request, attempt, busy.retry_after)
                if self.stopped.is_set():
                    return
        except ItemRefused as refused:
            self._give_up(item, sample, str(refused))
        except BudgetSpent:
            self.outcome.budget_spent = True
            self._give_up(item, sample, "budget spent")

    def _lose(self, item: Item, sample: int, busy: TeacherBusy) -> None:
        """All attempts failed: that is the item's fault only where other items are answered."""
        problem = f"{self.config.attempts} attempts failed; the last: {busy}"
        self.lost.append((item, sample, problem))
        if not busy.sent or len(self.lost) == LOST_IN_A_ROW:
            raise TeacherDown(f"{problem}; what came before is stored, and `preceptor run` asks for the rest") from busy

    def note_lost(self) -> None:
        """Give up what was lost while other requests were answered."""
        for lost in self.lost:
            self._give_up(*lost)
        self.lost.clear()

    def _give_up(self, item: Item, sample: int, problem: str) -> None:
        self.outcome.gave_up += 1
        self._note(item, sample, problem)

    async def _attempt(self, request: Request, item: Item, attempt: int) -> bool:
        """One request, from hold to settlement; False where nothing may be sent any more."""
        charge = await self._reserve(request, attempt)
        if charge is None:
            return False
        try:
            completion = await self._send(request, charge)
            self.note_lost()
            self._keep(charge, request, item, completion)
        finally:
            self.holds -= 1
            self.hold_closed.set()
        return True

    async def _reserve(self, request: Request, attempt: int) -> int | None:
        """A hold for one attempt; waits for holds under way to settle where it does not fit beside them."""
        worst = worst_case(request, self.teacher.price)
        purpose = f"ask/{self.round_id}/{request.item_key}/{request.sample}/{attempt}"
        async with self.next_in_line:
            while not self.stopped.is_set():
                if self.outcome.budget_spent:
                    raise BudgetSpent("the budget is spent")
                try:
                    charge = self.book.reserve(purpose, worst)
                except BudgetSpent:
                    if self.holds == 0:
                        raise
                    self.hold_closed.clear()
                    await self.hold_closed.wait()
                else:
                    self.holds += 1
                    return charge
        return None

    async def _send(self, request: Request, charge: int) -> Completion:
        """The completion; the hold is closed where none came."""
        try:
            return await self.teacher.complete(request)
        except TeacherBusy as busy:
            close = self.book.assume if busy.sent else self.book.release
            close(charge)
            raise
        except TeacherRefused:
            self.book.release(charge)
            raise
        except asyncio.CancelledError:
            self.book.assume(charge)
            raise

    def _keep(self, charge: int, request: Request, item: Item, completion: Completion) -> None:
        """Settle from usage, at the bound where none was reported, and store what came in the same transaction."""
        used = _tokens(completion.input_tokens, most_input_tokens(request))
        made = _tokens(completion.output_tokens, request.max_completion_tokens)
        cost = self.teacher.price(request, input_tokens=used, output_tokens=made)
        result = read(completion, item, self.task)
        prompt = prompt_of(request)
        reply = Reply(
            round_id=self.round_id,
            item_key=item.key,
            sample=request.sample,
            prompt_hash=prompt.hash,
            charge_id=charge,
            model=storable(completion.model),
            text=storable(completion.text[:LONGEST_STORED]),
            finish_reason=storable(completion.finish_reason),
            input_tokens=used,
            output_tokens=made,
            state=ReplyState.READABLE if isinstance(result, Draft) else ReplyState.UNREADABLE,
            problem=None if isinstance(result, Draft) else result.problem,
            created_at=datetime.now(UTC),
        )
        rationale = self._rationale(item, request.sample, result) if isinstance(result, Draft) else None
        self.book.keep(charge, cost, prompt, reply, rationale)
        self.outcome.replies += rationale is not None
        self.outcome.unreadable += rationale is None
        if reply.problem is not None:
            self._note(item, request.sample, reply.problem)

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

    def _note(self, item: Item, sample: int, problem: str) -> None:
        """Why the item gets no rationale to review; further samples are only compared with, so it gets one without."""
        if sample == 0:
            self.book.give_up(item.key, problem)

    async def _pause(self, request: Request, attempt: int, retry_after: float | None) -> None:
        """Wait before the next attempt: longer each time, apart from others, as long as asked; less if stopped."""
        spread = random.Random(f"{request.item_key}/{request.sample}/{attempt}").uniform(0.5, 1.5)
        seconds = min(LONGEST_PAUSE, max(FIRST_PAUSE * 2**attempt * spread, retry_after or 0.0))
        waits = [asyncio.ensure_future(self.sleep(seconds)), asyncio.ensure_future(self.stopped.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _tokens(reported: int | None, bound: int) -> int:
    """The reported number of tokens, or the bound where none (or nonsense) was reported."""
    return bound if reported is None or reported < 0 else reported
