"""Asks the teacher by batches: many requests handed over at once and answered within a day, at a lower price.

What goes into a batch is stored with its holds before the endpoint sees it, under a name that the endpoint keeps too.
So after any interruption it is known what is there, and nothing is handed over twice. Results are joined to requests by
`custom_id`. What a batch leaves unanswered goes into another one, alone; what cannot be answered that way is left for
`loop.teacher.ask`, which can shorten prompts and knows when to give up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from typing import TypeVar

from loop.config import TeacherConfig
from loop.errors import TeacherBusy, TeacherDown, TeacherError, TeacherRefused
from loop.events import happened
from loop.ledger import discounted
from loop.ports import (
    Bar,
    BatchBook,
    Batches,
    BatchState,
    Completion,
    Job,
    Line,
    Progress,
    Remembering,
    Request,
    Teacher,
    Wanted,
)
from loop.records import Item
from loop.teacher.ask import Asking, Todo
from loop.teacher.prompt import prompt_of, request_for, worst_case
from loop.teacher.send import FIRST_PAUSE, LONGEST_PAUSE, Sleep, prompt_type, received

T = TypeVar("T")
MOST_LINES = 1000
"""Requests in one batch. Endpoints take more, but each is held in the one transaction that makes the batch."""
CLOCKS_APART = timedelta(hours=1)
"""How far the endpoint's clock may be from ours."""


async def ask_in_batches(  # noqa: PLR0913 - the ports of one stage
    missing: Callable[[], Sequence[Todo]],
    batches: Batches,
    teacher: Teacher,
    book: BatchBook,
    asking: Asking,
    *,
    progress: Progress,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Store what comes of the batches under way; then hand over what is missing, until no batch can bring more.

    Raises:
        TeacherDown: the endpoint does not answer; what it was handed stays there.
        TeacherRefused: it refuses a batch as a whole.
        UnknownPrice: the model's price is not known.
    """
    mail = _Mail(batches, teacher, book, asking, progress, sleep)
    mail.perhaps_there = {job.id for job in book.open_jobs()}
    while True:
        jobs = book.open_jobs()
        if jobs:
            await mail.collect(jobs)
        elif not mail.hand_over(missing() if asking.config.batch else ()):
            return


@dataclass
class _Mail:
    """One call of `ask_in_batches`."""

    batches: Batches
    teacher: Teacher
    book: BatchBook
    asking: Asking
    progress: Progress
    sleep: Sleep
    refused: set[tuple[str, int]] = field(default_factory=set)
    """Requests that no batch will answer, by item and sample."""
    perhaps_there: set[int] = field(default_factory=set)
    """Jobs that the endpoint may have though it was not written down: of an earlier process, or after a time-out."""

    @property
    def config(self) -> TeacherConfig:
        return self.asking.config

    def hand_over(self, missing: Sequence[Todo]) -> bool:
        """Make jobs of what is missing and fits the budget; whether there are any."""
        posted = self.book.times_posted()
        wanted = [
            self._wanted(item, request)
            for _, item, sample in missing
            if (item.key, sample) not in self.refused and posted.get((item.key, sample), 0) < self.config.attempts
            if not self._is_remembered(request := self._request(item, sample))
        ]
        for start in range(0, len(wanted), MOST_LINES):
            self.book.prepare(wanted[start : start + MOST_LINES])
        return bool(self.book.open_jobs())

    async def collect(self, jobs: Sequence[Job]) -> None:
        """Have the endpoint take all jobs, wait for each, and store its results."""
        taken = [(job, remote_id) for job in jobs if (remote_id := await self._taken(job)) is not None]
        total = sum(len(job.lines) for job, _ in taken)
        with self.progress.bar(f"teacher answers {len(taken)} batch{'es' * (len(taken) > 1)}", total) as bar:
            for job, remote_id in taken:
                await self._finish(job, remote_id, bar)

    def _request(self, item: Item, sample: int) -> Request:
        return request_for(item, self.asking.task, self.config, self.asking.demonstrations(item), sample)

    def _wanted(self, item: Item, request: Request) -> Wanted:
        worst = discounted(worst_case(request, self.teacher.price), self.config.batch_discount)
        return Wanted(item, request, prompt_of(request), prompt_type(request, "ask"), worst)

    def _is_remembered(self, request: Request) -> bool:
        return isinstance(self.teacher, Remembering) and self.teacher.recall(request) is not None

    async def _taken(self, job: Job) -> str | None:
        """The endpoint's id of a job, which is handed over unless the endpoint has it already.

        None where it may have it and does not say, and batches were switched off: then it is charged at worst case.
        """
        if job.remote_id is not None:
            return job.remote_id
        lines, since = {line.custom_id: line.request for line in job.lines}, job.created_at.replace(tzinfo=UTC)

        async def take() -> str:
            if found := await self.batches.find(job.name, since - CLOCKS_APART):
                return found
            try:
                return await self.batches.create(job.name, lines)
            except TeacherBusy:
                self.perhaps_there.add(job.id)
                raise
            except TeacherRefused:
                self.perhaps_there.discard(job.id)
                raise

        try:
            remote_id = await self._patiently(take)
        except TeacherRefused as refused:
            if job.id not in self.perhaps_there:
                self.book.close_job(job.id, str(refused))
                raise
            if self.config.batch:
                raise TeacherRefused(
                    f"{refused}; a batch of {len(lines)} requests may be there already, so its money stays reserved: "
                    "mend that, or give it up by teacher.batch = false, which charges it at worst case"
                ) from refused
            self.progress.say(f"  the endpoint does not say whether it has batch {job.name}: charged at worst case")
            self._store(job, [])
            return None
        self.book.created(job.id, remote_id)
        happened("batch_handed_over", count=len(lines))
        self.progress.say(
            f"  batch {remote_id}: {len(lines)} requests for {1 - self.config.batch_discount:.0%} of the price; it "
            "stays at the endpoint if you stop here, and `preceptor run` takes it up again"
        )
        return remote_id

    async def _finish(self, job: Job, remote_id: str, bar: Bar) -> None:
        """Wait until a job has ended and store its results."""
        state = await self._ended(remote_id, bar, len(job.lines))
        if state is None:
            self.progress.say(f"  the endpoint does not know batch {remote_id} any more: it is charged at worst case")
            self._store(job, [])
        elif state.problem is not None:
            self.book.close_job(job.id, state.problem)
            raise TeacherRefused(
                f"batch {remote_id} was refused: {state.problem}; nothing was charged. Mend that, or set "
                "teacher.batch = false"
            )
        else:
            self._store(job, await self._patiently(lambda: self.batches.results(remote_id)))

    async def _ended(self, remote_id: str, bar: Bar, total: int) -> BatchState | None:
        """The last state of a job, shown as it goes on."""
        shown = 0
        while True:
            state = await self._patiently(lambda: self.batches.state(remote_id))
            done = total if state is None or state.ended else min(state.done, total)
            bar.advance(max(0, done - shown))
            shown = max(done, shown)
            if state is None or state.ended:
                return state
            await self.sleep(self.config.batch_poll)

    def _store(self, job: Job, results: Sequence[tuple[str, Completion | TeacherError]]) -> None:
        """Settle or give back every hold of a job, each in a transaction of its own."""
        lines, foreign, failed = {line.custom_id: line for line in job.lines}, 0, 0
        for custom_id, result in results:
            line = lines.pop(custom_id, None)
            foreign += custom_id not in job.custom_ids
            if line is not None:
                failed += not isinstance(result, Completion)
                self._close(line, result)
        for line in lines.values():
            self.book.assume(line.charge_id)
            happened("charge_assumed", charge=line.charge_id)
        self.book.close_job(job.id)
        happened("batch_ended", count=len(results))
        if foreign or failed or lines:
            self.progress.say(
                f"  batch {job.remote_id or job.name}: {failed} requests failed, {len(lines)} have no result and are "
                f"charged at worst case, {foreign} results belong to no request of it and are left alone"
            )

    def _close(self, line: Line, result: Completion | TeacherError) -> None:
        """What came of one request."""
        if isinstance(result, Completion):
            got = received(result, line.request, line.charge_id, self.teacher.price)
            if isinstance(self.teacher, Remembering):
                self.teacher.remember(line.request, result)
            price = discounted(got.micro_usd, self.config.batch_discount)
            self.asking.keep(line.item, replace(got, micro_usd=price))
            happened("charge_settled", charge=line.charge_id, micro_usd=price)
            return
        self.book.release(line.charge_id)
        happened("charge_released", charge=line.charge_id)
        if not isinstance(result, TeacherBusy):
            self.refused.add((line.item.key, line.request.sample))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What a call to the endpoint gives, after as many attempts as a request has."""
        for attempt in range(self.config.attempts):
            try:
                return await call()
            except TeacherBusy as busy:
                last = busy
                pause = max(FIRST_PAUSE * 2**attempt, busy.retry_after or 0.0)
            if attempt + 1 < self.config.attempts:
                await self.sleep(min(LONGEST_PAUSE, pause))
        raise TeacherDown(
            f"{last}; what it was handed stays there, and `preceptor run` takes it up again", free=True
        ) from last
