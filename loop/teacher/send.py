"""Sends requests to a paid endpoint, many at once: reserve, send, settle.

No request is sent before its worst-case price is reserved, each attempt for itself. A completion is settled and stored
in one go. A hold whose request certainly never reached the endpoint is given back; one whose fate is unknown is charged
at worst case.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from loop.config import EndpointConfig
from loop.errors import BudgetSpent, ItemRefused, TeacherBusy, TeacherDown, TeacherRefused
from loop.ports import Bar, Completion, Remembering, Request, Teacher, Till
from loop.teacher.prompt import most_input_tokens, worst_case

FIRST_PAUSE = 1.0
"""Seconds before the second attempt; doubled before each further one."""
LONGEST_PAUSE = 120.0
"""No pause is longer, whatever the endpoint asks for."""
LOST_IN_A_ROW = 5
"""So many requests without any reply are the endpoint's fault and not that of their items."""
LONGEST_STORED = 200_000
"""Characters of a reply that are kept."""

Job = TypeVar("Job")
Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True)
class Received:
    """A completion, the hold that it settles, and what it cost; tokens at their bound where none were reported."""

    completion: Completion
    charge_id: int
    micro_usd: int
    input_tokens: int
    output_tokens: int
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

    async def send(self, request: Request, purpose: str, keep: Callable[[Received], None]) -> bool:
        """All attempts for one reply, which `keep` settles and stores; whether it came."""
        try:
            if self._recall(request, purpose, keep):
                await asyncio.sleep(0)  # so that a long row of remembered replies can be stopped
                return True
            for attempt in range(self.config.attempts):
                try:
                    if await self._attempt(request, f"{purpose}/{attempt}", keep):
                        return True
                except TeacherBusy as busy:
                    if attempt + 1 == self.config.attempts:
                        self._lose(request, busy)
                    else:
                        await self._pause(request, attempt, busy.retry_after)
                if self.stopped.is_set():
                    return False
        except ItemRefused as refused:
            self.give_up(request, str(refused))
        except BudgetSpent:
            self.budget_spent = True
            self.give_up(request, "budget spent")
        return False

    def _recall(self, request: Request, purpose: str, keep: Callable[[Received], None]) -> bool:
        """Keep what the endpoint gave for the same request before, with a charge of nothing; whether it did."""
        known = self.endpoint.recall(request) if isinstance(self.endpoint, Remembering) else None
        if known is None:
            return False
        paid = self._received(request, known.completion, charge=0)
        charge = self.till.reserve(f"{purpose}/remembered", 0)
        keep(replace(paid, charge_id=charge, micro_usd=0, remembered=known.origin, saved=paid.micro_usd))
        return True

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
        problem = f"{self.config.attempts} attempts failed; the last: {busy}"
        self.lost.append((request, problem))
        if not busy.sent or len(self.lost) == LOST_IN_A_ROW:
            raise TeacherDown(f"{problem}; what came before is stored, and `preceptor run` asks for the rest") from busy

    def _note_lost(self) -> None:
        """Give up what was lost while other requests were answered."""
        for request, problem in self.lost:
            self.give_up(request, problem)
        self.lost.clear()

    async def _attempt(self, request: Request, purpose: str, keep: Callable[[Received], None]) -> bool:
        """One request, from hold to settlement; False where nothing may be sent any more."""
        charge = await self._reserve(request, purpose)
        if charge is None:
            return False
        try:
            completion = await self._send(request, charge)
            self._note_lost()
            keep(self._received(request, completion, charge))
        finally:
            self.holds -= 1
            self.hold_closed.set()
        return True

    async def _reserve(self, request: Request, purpose: str) -> int | None:
        """A hold for one attempt; waits for holds under way to settle where it does not fit beside them."""
        worst = worst_case(request, self.endpoint.price)
        async with self.next_in_line:
            while not self.stopped.is_set():
                if self.budget_spent:
                    raise BudgetSpent("the budget is spent")
                try:
                    charge = self.till.reserve(purpose, worst)
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
            return await self.endpoint.complete(request)
        except TeacherBusy as busy:
            close = self.till.assume if busy.sent else self.till.release
            close(charge)
            raise
        except TeacherRefused:
            self.till.release(charge)
            raise
        except asyncio.CancelledError:
            self.till.assume(charge)
            raise

    def _received(self, request: Request, completion: Completion, charge: int) -> Received:
        """The completion with what it cost."""
        used = _tokens(completion.input_tokens, most_input_tokens(request))
        made = _tokens(completion.output_tokens, request.max_completion_tokens)
        return Received(
            completion, charge, self.endpoint.price(request, input_tokens=used, output_tokens=made), used, made
        )

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
