"""Sends requests to a paid endpoint, many at once: reserve, send, settle.

No request is sent before its worst-case price is reserved, each attempt for itself. A completion is settled and stored
in one go. A hold whose request certainly never reached the endpoint is given back; one whose fate is unknown is charged
at worst case.

A reply may be as long as nearly all replies to such prompts were, and its hold is that long; the few that this cuts off
are paid and asked for again at full length.
"""

import asyncio
import contextlib
import hashlib
import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from loop.config import EndpointConfig
from loop.errors import BudgetSpent, ItemRefused, PromptTooLong, TeacherBusy, TeacherDown, TeacherRefused
from loop.events import about, happened
from loop.ledger import longest_reply
from loop.plain import storable
from loop.ports import SOON, Bar, Completion, Remembering, Request, Teacher, Till
from loop.records import NOT_SENT
from loop.redaction import put_back
from loop.teacher.clerk import Clerk
from loop.teacher.prompt import Price, most_input_tokens, prompt_of, worst_case
from loop.teacher.width import Place, Width

FIRST_PAUSE = 1.0
"""Seconds before the second attempt; doubled before each further one."""
LONGEST_PAUSE = 120.0
"""No pause is longer, whatever the endpoint asks for."""
REFUSALS = 8
"""Attempts at least where the endpoint only has too much to do: they cost nothing, and outlast a window of a minute."""
LOST_IN_A_ROW = 5
"""So many requests without any reply are the endpoint's fault and not that of their items."""
LONGEST_STORED = 200_000
"""Characters of a reply that are kept."""
REMEMBERED = 500
"""So many replies of one kind tell how long the next one may be."""
BYTES_PER_TOKEN = 4
"""By which endpoints count a request's tokens before they read it."""
SLOW = 0.5
"""A reply that took this share of the time-out is a sign of overload."""

Job = TypeVar("Job")
Sleep = Callable[[float], Awaitable[object]]
Shorter = Callable[[Request], Request | None]
"""What is left of a request that is too long; None where nothing can be left out."""


def nobody_is_told(request: Request, problem: str) -> None:
    """For requests that nothing depends on: what they lack shows in the store."""


@dataclass(frozen=True)
class Received:
    """A completion, the hold that it settles, and what it cost; tokens at their bound where none were reported."""

    completion: Completion
    charge_id: int
    micro_usd: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    request: Request
    """As it was sent, which may be shorter than it was to be; with the longest reply that it was meant to allow."""
    remembered: str | None = None
    """Where it was paid for, where it is remembered and cost nothing."""
    saved: int = 0
    """Micro-dollars that it would have cost then."""


@dataclass
class Sender:
    """Does jobs that send requests; one budget, one endpoint."""

    endpoint: Teacher
    till: Till
    config: EndpointConfig
    sleep: Sleep
    give_up: Callable[[Request, str], None]
    """Told which request will get no reply, and why."""
    budget_spent: bool = False
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    lost: list[tuple[Request, str]] = field(default_factory=list)
    """Requests that failed since the last completion, and their problems."""
    holds: int = 0
    """Requests under way."""
    hold_closed: asyncio.Event = field(default_factory=asyncio.Event)
    next_in_line: asyncio.Lock = field(default_factory=asyncio.Lock)
    next_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    exhausted: dict[str, int] = field(default_factory=dict)
    """The smallest price, by scope, that did not fit under its limit with nothing else under way."""
    lengths: dict[str, deque[int]] = field(default_factory=dict)
    """How long replies were, by type of prompt."""
    width: Width = field(init=False)
    clerk: Clerk = field(init=False)

    def __post_init__(self) -> None:
        self.width = Width(self.config.concurrency)
        self.clerk = Clerk(self.till)

    async def work(self, jobs: Sequence[Job], do: Callable[[Job], Awaitable[None]], bar: Bar) -> None:
        """Do the jobs, `config.concurrency` at once.

        When this is cancelled, nothing new is sent; what is under way has `config.timeout` seconds to come back and be
        settled.

        Raises:
            TeacherDown: the endpoint cannot be reached, or request after request fails.
            TeacherRefused: the endpoint refuses what every request has in common (key, model, form).
            UnknownPrice: the model's price is not known.
        """
        waiting = iter(jobs)
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(self.endpoint, contextlib.AbstractAsyncContextManager):
                await stack.enter_async_context(self.endpoint)
            number = min(self.config.concurrency, len(jobs))
            await self._finish([asyncio.create_task(self._worker(waiting, do, bar)) for _ in range(number)])
        self._note_lost()

    async def send(
        self, request: Request, purpose: str, keep: Callable[[Received], None], shorter: Shorter = lambda _: None
    ) -> bool:
        """All attempts for one reply, which `keep` settles and stores; whether it came.

        Where a request is longer than the model reads, what `shorter` makes of it is sent instead.
        """
        try:
            with about(item=request.item_key, request=purpose):
                if self._recall(request, purpose, keep):
                    await asyncio.sleep(0)  # so that a long row of remembered replies can be stopped
                    return True
                return await self._attempts(request, purpose, keep)
        except PromptTooLong as refused:
            less = shorter(request)
            if less is not None:
                return await self.send(less, f"{purpose}-", keep, shorter)
            self.give_up(request, f"{refused}; nothing is left to leave out: shorten the item, or {self._roomier()}")
        except ItemRefused as refused:
            self.give_up(request, str(refused))
        except BudgetSpent as spent:
            self.budget_spent |= not spent.scope.startswith("domain/")
            of = f" of {spent.where}" if spent.where else ""
            self.give_up(request, f"{NOT_SENT}{of} spent")
        return False

    def _roomier(self) -> str:
        table = self.config.table
        return f"lower {table}.max_completion_tokens, or take a {table}.model that reads more"

    def _recall(self, request: Request, purpose: str, keep: Callable[[Received], None]) -> bool:
        """Keep what the endpoint gave for the same request before, with a charge of nothing; whether it did."""
        known = self.endpoint.recall(request) if isinstance(self.endpoint, Remembering) else None
        if known is None:
            return False
        paid = self._received(request, known.completion, charge=0)
        charge = self.till.reserve(f"{purpose}/remembered", 0, item_key=request.item_key)
        keep(replace(paid, charge_id=charge, micro_usd=0, remembered=known.origin, saved=paid.micro_usd))
        happened("request_remembered", model=request.model, charge=charge)
        return True

    async def _attempts(self, request: Request, purpose: str, keep: Callable[[Received], None]) -> bool:
        """Attempts until a whole reply came; one that a learned length cut off is asked for again in full."""
        asked, failed = self._shortened(request, purpose), 0
        for attempt in itertools.count():
            if self.stopped.is_set():
                break
            try:
                received = await self._attempt(asked, request, f"{purpose}/{attempt}", keep)
            except TeacherBusy as busy:
                failed += 1
                if failed >= self._most(busy):
                    self._lose(request, busy)
                    break
                happened("request_retried", attempt=failed, sent=busy.sent)
                await self._pause(request, failed - 1, busy.retry_after)
                continue
            if received is None or not _is_cut(received, asked, request):
                return received is not None
            asked = request
        return False

    def _most(self, busy: TeacherBusy) -> int:
        """Attempts in all, where the last one failed so."""
        free = busy.overloaded and not busy.sent
        return max(self.config.attempts, REFUSALS) if free else self.config.attempts

    def _shortened(self, request: Request, purpose: str) -> Request:
        """The request, allowed a reply that is as long as nearly all before it."""
        kind = prompt_type(request, purpose)
        if kind not in self.lengths:
            self.lengths[kind] = deque(self.till.lengths(kind), REMEMBERED)
        length = longest_reply(self.lengths[kind], request.max_completion_tokens)
        return replace(request, max_completion_tokens=length)

    async def _worker(self, jobs: Iterator[Job], do: Callable[[Job], Awaitable[None]], bar: Bar) -> None:
        """Take one job after another until none is left."""
        for job in jobs:
            if self.stopped.is_set():
                return
            await do(job)
            bar.advance()

    async def _finish(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the workers; when one fails or we are cancelled, let the others settle what is under way."""
        if not workers:
            return
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            self._stop()
            await asyncio.wait(workers, timeout=self.config.timeout)
        except asyncio.CancelledError:
            self._stop()
            await asyncio.wait(workers, timeout=self.config.timeout)
            raise
        finally:
            for worker in workers:
                worker.cancel()
            failures = await asyncio.gather(*workers, return_exceptions=True)
        for failure in failures:
            if isinstance(failure, Exception):
                raise failure

    def _stop(self) -> None:
        """Send nothing new."""
        self.stopped.set()
        self.hold_closed.set()

    def _lose(self, request: Request, busy: TeacherBusy) -> None:
        """All attempts failed: that is the item's fault only where other items are answered."""
        problem = f"{self._most(busy)} attempts failed; the last: {busy}"
        self.lost.append((request, problem))
        if not busy.sent or len(self.lost) == LOST_IN_A_ROW:
            raise TeacherDown(
                f"{problem}; what came before is stored, and the same command asks for the rest", free=not busy.sent
            ) from busy

    def _note_lost(self) -> None:
        """Give up what was lost while other requests were answered."""
        for request, problem in self.lost:
            self.give_up(request, problem)
        self.lost.clear()

    async def _attempt(
        self, asked: Request, request: Request, purpose: str, keep: Callable[[Received], None]
    ) -> Received | None:
        """One request, from its turn to settlement; None where nothing may be sent any more."""
        async with self.width.place() as place:
            await self._turn(asked)
            charge = await self._reserve(asked, purpose)
            if charge is None:
                return None
            try:
                received = self._received(asked, await self._send(asked, charge, place), charge)
                received = replace(received, request=request)
                self._note_lost()
                if _is_cut(received, asked, request):
                    self.till.settle(charge, received.micro_usd)
                else:
                    await self.clerk.enter(lambda: keep(received))
                    self.lengths[prompt_type(request, purpose)].append(received.output_tokens)
                _tell_settled(received)
            finally:
                self.holds -= 1
                self.hold_closed.set()
        return received

    async def _turn(self, request: Request) -> None:
        """Wait until the endpoint takes another request; one of ours at a time looks where that takes long."""
        size = sum(len(message["content"].encode("utf-8", "replace")) for message in request.messages)
        tokens = size // BYTES_PER_TOKEN + request.max_completion_tokens

        def look() -> float:
            return self.till.turn(tokens)

        wait = LONGEST_PAUSE if self.next_turn.locked() else await self.clerk.enter(look)
        if wait > SOON:
            async with self.next_turn:
                while not self.stopped.is_set() and (wait := await self.clerk.enter(look)) > SOON:
                    await self._rest(wait)
        if not self.stopped.is_set() and wait > 0:
            await self._rest(wait)

    async def _reserve(self, request: Request, purpose: str) -> int | None:
        """A hold for one attempt; waits for holds under way to settle where it does not fit beside them."""
        worst = worst_case(request, self.endpoint.price)
        kind = prompt_type(request, purpose)

        def hold() -> int:
            charge = self.till.reserve(purpose, worst, item_key=request.item_key, prompt_type=kind)
            self.holds += 1
            return charge

        if not self.next_in_line.locked() and not self.stopped.is_set():
            with contextlib.suppress(BudgetSpent):
                return _reserved(await self.clerk.enter(hold, self._unhold), worst)
        async with self.next_in_line:
            while not self.stopped.is_set():
                try:
                    return _reserved(await self.clerk.enter(hold, self._unhold), worst)
                except BudgetSpent as spent:
                    least = self.exhausted.get(spent.scope, worst)
                    if self.holds == 0 or (spent.scope in self.exhausted and worst >= least):
                        self.exhausted[spent.scope] = min(worst, least)
                        raise
                    self.hold_closed.clear()
                    await self.hold_closed.wait()
        return None

    def _unhold(self, charge: int) -> None:
        """Give back a hold for which nothing will be sent."""
        self._release(charge)
        self.holds -= 1
        self.hold_closed.set()

    def _release(self, charge: int) -> None:
        self.till.release(charge)
        happened("charge_released", charge=charge)

    def _assume(self, charge: int) -> None:
        self.till.assume(charge)
        happened("charge_assumed", charge=charge)

    async def _send(self, request: Request, charge: int, place: Place) -> Completion:
        """The completion; the hold is closed where none came, and so is the endpoint where it says so."""
        clock = asyncio.get_running_loop().time
        start = clock()
        happened("request_sent", model=request.model, charge=charge)
        try:
            completion = await self.endpoint.complete(request)
        except TeacherBusy as busy:
            place.overloaded = busy.overloaded
            close = self._assume if busy.sent else self._release
            close(charge)
            if busy.retry_after:
                self.till.close(min(busy.retry_after, LONGEST_PAUSE))
            raise
        except TeacherRefused:
            happened("request_refused", model=request.model, charge=charge)
            self._release(charge)
            raise
        except asyncio.CancelledError:
            self._assume(charge)
            raise
        seconds = clock() - start
        happened("request_answered", model=request.model, charge=charge, seconds=round(seconds, 3))
        place.overloaded = seconds > SLOW * self.config.timeout
        if completion.closed_for:
            self.till.close(min(completion.closed_for, LONGEST_PAUSE))
        return completion

    def _received(self, request: Request, completion: Completion, charge: int) -> Received:
        """The completion with what it cost."""
        return received(completion, request, charge, self.endpoint.price)

    async def _pause(self, request: Request, attempt: int, retry_after: float | None) -> None:
        """Wait before the next attempt: longer each time, apart from others, as long as asked; less if stopped."""
        spread = random.Random(f"{request.item_key}/{request.sample}/{attempt}").uniform(0.5, 1.5)
        await self._rest(min(LONGEST_PAUSE, max(FIRST_PAUSE * 2**attempt * spread, retry_after or 0.0)))

    async def _rest(self, seconds: float) -> None:
        """Sleep, less if stopped."""
        waits = [asyncio.ensure_future(self.sleep(seconds)), asyncio.ensure_future(self.stopped.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _reserved(charge: int, micro_usd: int) -> int:
    """The charge, after it was told."""
    happened("charge_reserved", charge=charge, micro_usd=micro_usd)
    return charge


def _tell_settled(received: Received) -> None:
    happened(
        "charge_settled", charge=received.charge_id, micro_usd=received.micro_usd,
        input_tokens=received.input_tokens, output_tokens=received.output_tokens,
    )  # fmt: skip


def received(completion: Completion, request: Request, charge: int, price: Price) -> Received:
    """The completion of a request, with what was hidden back in its place, and what it cost."""
    completion = put_back(completion, request.hidden)
    used = _tokens(completion.input_tokens, most_input_tokens(request))
    made = _tokens(completion.output_tokens, request.max_completion_tokens)
    cached = max(0, min(completion.cached_tokens, used))
    cost = price(request, input_tokens=used, output_tokens=made, cached_tokens=cached)
    return Received(completion, charge, cost, used, made, cached, request)


def as_stored(received: Received) -> dict[str, Any]:
    """The columns that a row of any kind has of a reply."""
    completion = received.completion
    return {
        "prompt_hash": prompt_of(received.request).hash,
        "charge_id": received.charge_id,
        "model": storable(completion.model),
        "text": storable(completion.text[:LONGEST_STORED]),
        "finish_reason": storable(completion.finish_reason),
        "input_tokens": received.input_tokens,
        "output_tokens": received.output_tokens,
        "cached_tokens": received.cached_tokens,
        "created_at": datetime.now(UTC),
    }


def prompt_type(request: Request, purpose: str) -> str:
    """What requests have in common whose replies should be about as long: use, model, and what it is told to do."""
    said = f"{purpose.partition('/')[0]}\n{request.model}\n{request.messages[0]['content']}"
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_cut(received: Received, asked: Request, request: Request) -> bool:
    """Whether the reply ends where a learned length ended it, so that it may be whole if asked for in full."""
    learned = asked.max_completion_tokens < request.max_completion_tokens
    return learned and received.completion.finish_reason == "length"


def _tokens(reported: int | None, bound: int) -> int:
    """The reported number of tokens, or the bound where none (or nonsense) was reported."""
    return bound if reported is None or reported < 0 else reported
