"""Asking never overspends, never pays twice and loses nothing, however the teacher misbehaves.

The real client speaks to the real recorded server; the book is a plain one in memory that enforces its limit.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from connectors.openai_teacher import OpenAITeacher
from connectors.recorded_teacher import Fault, RecordedTeacher, Recording, running
from loop.config import TaskConfig, TeacherConfig
from loop.errors import BudgetSpent, TeacherDown, TeacherRefused, UnknownPrice
from loop.ports import Completion, Request
from loop.records import ChargeState, Item, Prompt, Query, Rationale, Reply, Split
from loop.records.teacher import ReplyState
from loop.teacher.ask import AskOutcome, ask
from loop.teacher.prompt import request_for, worst_case

RICH = 10**9
TASK = TaskConfig()


@dataclass
class Hold:
    """A charge of the book."""

    purpose: str
    reserved: int
    state: ChargeState = ChargeState.RESERVED
    assumed: bool = False
    settled: int = 0


@dataclass
class Book:
    """An ask book in memory; it breaks the test as soon as a rule of money is broken."""

    limit: int = RICH
    charges: list[Hold] = field(default_factory=list)
    replies: dict[tuple[str, int], Reply] = field(default_factory=dict)
    rationales: dict[tuple[str, int], Rationale] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    closed: list[float] = field(default_factory=list)

    @property
    def spent(self) -> int:
        return sum(charge.settled for charge in self.charges)

    @property
    def reserved(self) -> int:
        return sum(charge.reserved for charge in self.charges if charge.state is ChargeState.RESERVED)

    def reserve(self, purpose: str, micro_usd: int, *, item_key: str = "", prompt_type: str = "") -> int:
        if self.spent + self.reserved + micro_usd > self.limit:
            raise BudgetSpent("over the limit")
        assert purpose not in {charge.purpose for charge in self.charges}
        self.charges.append(Hold(purpose, micro_usd))
        return len(self.charges) - 1

    def release(self, charge_id: int) -> None:
        self._close(charge_id, ChargeState.RELEASED, 0)

    def assume(self, charge_id: int) -> None:
        self._close(charge_id, ChargeState.SETTLED, self.charges[charge_id].reserved).assumed = True

    def settle(self, charge_id: int, micro_usd: int) -> None:
        self._close(charge_id, ChargeState.SETTLED, micro_usd)

    def lengths(self, prompt_type: str) -> list[int]:
        return []

    def turn(self, tokens: int) -> float:
        return 0.0

    def close(self, seconds: float) -> None:
        self.closed.append(seconds)

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, reply: Reply, rationale: Rationale | None) -> None:
        at = (reply.item_key, reply.sample)
        assert at not in self.replies, "paid twice"
        assert reply.charge_id == charge_id
        assert reply.prompt_hash == prompt.hash
        assert micro_usd <= self.charges[charge_id].reserved
        self._close(charge_id, ChargeState.SETTLED, micro_usd)
        self.replies[at] = reply
        if rationale is not None:
            self.rationales[at] = rationale

    def give_up(self, item_key: str, problem: str) -> None:
        self.problems[item_key] = problem

    def _close(self, charge_id: int, state: ChargeState, settled: int) -> Hold:
        charge = self.charges[charge_id]
        assert charge.state is ChargeState.RESERVED, "closed twice"
        charge.state, charge.settled = state, settled
        assert self.spent + self.reserved <= self.limit
        return charge

    def states(self) -> list[str]:
        """How the charges ended, in their order."""
        return ["assumed" if charge.assumed else charge.state.value for charge in self.charges]


class Silent:
    """Progress that nobody looks at, and its bar."""

    def __init__(self) -> None:
        self.done = 0

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator["Silent"]:
        yield self

    def say(self, text: str) -> None: ...

    def advance(self, steps: int = 1) -> None:
        self.done += steps


class Clock:
    """Sleeps without waiting and remembers for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.001)


def an_item(number: int) -> Item:
    return Item(key=f"q{number}", question=f"What is {number} + {number}?", split=Split.POOL, text_hash="")


def recorded(items: Sequence[Item], faults: Sequence[Fault] = (), api_key: str | None = None) -> RecordedTeacher:
    """A teacher whose answer to `q7` is 14, in the first sample and in the second."""
    rows = []
    for item in items:
        answer = str(2 * int(item.key[1:]))
        rows += [
            Recording(key=item.key, question=item.question, steps=(f"it is {answer}",), answer=answer, sample=sample)
            for sample in (0, 1)
        ]
    return RecordedTeacher(rows, faults, api_key)


def a_config(address: str, **changes: object) -> TeacherConfig:
    settings = {"input_price": 1.0, "output_price": 2.0, "timeout": 5.0, "model": "recorded", **changes}
    return TeacherConfig(**{"base_url": address, **settings})


def asked(items: Sequence[Item], samples: int = 1) -> list[tuple[Query, Item, int]]:
    return [
        (Query(round_id=1, item_key=item.key, position=position, arm="random"), item, sample)
        for position, item in enumerate(items)
        for sample in range(samples)
    ]


async def asking(
    items: Sequence[Item],
    config: TeacherConfig,
    book: Book,
    clock: Clock | None = None,
    samples: int = 1,
    teacher: OpenAITeacher | None = None,
) -> AskOutcome:
    return await ask(
        asked(items, samples),
        teacher or OpenAITeacher(config),
        book,
        TASK,
        config,
        round_id=1,
        demonstrations=lambda item: (),
        progress=Silent(),
        sleep=(clock or Clock()).sleep,
    )


def run(
    items: Sequence[Item], book: Book, faults: Sequence[Fault] = (), clock: Clock | None = None, **changes: object
) -> AskOutcome:
    """Ask for the items a teacher that misbehaves so."""
    with running(recorded(items, faults)) as address:
        return asyncio.run(asking(items, a_config(address, **changes), book, clock))


def worst_of(item: Item, **changes: object) -> int:
    config = a_config("http://127.0.0.1:1/v1", **changes)
    return worst_case(request_for(item, TASK, config, (), 0), OpenAITeacher(config).price)


def test_every_reply_lands_on_its_own_item_whatever_the_order() -> None:
    items = [an_item(number) for number in range(40)]
    slow = [Fault(kind="slow", every=3, times=10, seconds=0.1)]
    book = Book()
    with running(recorded(items, slow)) as address:
        outcome = asyncio.run(asking(items, a_config(address), book, samples=2))
    assert outcome == AskOutcome(replies=80)
    for (key, sample), rationale in book.rationales.items():
        assert rationale.parsed is not None
        assert rationale.parsed.value == str(2 * int(key[1:]))
        assert (rationale.item_key, rationale.sample) == (key, sample)
    assert len({reply.prompt_hash for reply in book.replies.values()}) == 80
    assert set(book.states()) == {"settled"}


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        ("429", ["released", "settled"]),
        ("500", ["assumed", "settled"]),
        ("not_json", ["assumed", "settled"]),
        ("slow", ["assumed", "settled"]),
        ("no_usage", ["settled"]),
    ],
)
def test_fault_that_passes_costs_what_it_may_have_cost(kind: str, states: list[str]) -> None:
    book = Book()
    fault = Fault.model_validate({"kind": kind, "seconds": 2.0})
    outcome = run([an_item(1)], book, [fault], timeout=0.5)
    assert outcome == AskOutcome(replies=1)
    assert book.states() == states
    assert book.problems == {}


@pytest.mark.parametrize("kind", ["cut_off", "malformed", "wrong_schema"])
def test_unreadable_reply_is_paid_stored_and_not_asked_again(kind: str) -> None:
    book = Book()
    outcome = run([an_item(1)], book, [Fault.model_validate({"kind": kind})])
    assert outcome == AskOutcome(unreadable=1)
    assert book.states() == ["settled"]
    reply = book.replies["q1", 0]
    assert reply.state is ReplyState.UNREADABLE
    assert reply.problem
    assert reply.text
    assert book.rationales == {}
    assert book.problems == {"q1": reply.problem}


def test_reply_without_usage_is_charged_at_worst_case() -> None:
    book = Book()
    run([an_item(1), an_item(2)], book, [Fault(kind="no_usage", key="q1")])
    charges = {charge.purpose: charge for charge in book.charges}
    assert charges["ask/1/q1/0/0"].settled == charges["ask/1/q1/0/0"].reserved == worst_of(an_item(1))
    assert 0 < charges["ask/1/q2/0/0"].settled < charges["ask/1/q2/0/0"].reserved


def test_tokens_from_the_prompt_cache_are_settled_at_their_price_and_held_in_full() -> None:
    item, book = an_item(1), Book()
    line = Recording(
        key=item.key,
        question=item.question,
        steps=("so",),
        answer="4",
        input_tokens=50,
        output_tokens=4,
        cached_tokens=40,
    )
    with running(RecordedTeacher([line])) as address:
        config = a_config(address, input_price=1.0, output_price=2.0, cached_input_price=0.25)
        asyncio.run(asking([item], config, book))
    [charge], [reply] = book.charges, book.replies.values()
    assert charge.settled == 10 + 10 + 8
    assert (reply.input_tokens, reply.cached_tokens) == (50, 40)
    assert charge.reserved == worst_of(item)


@pytest.mark.parametrize("limit", [RICH, 60_000, 12_000])
def test_no_overspend_and_nothing_paid_twice_under_concurrency_and_faults(limit: int) -> None:
    items = [an_item(number) for number in range(150)]
    faults = [
        Fault.model_validate({"kind": kind, "every": every, "times": 12, "seconds": 0.05})
        for kind, every in [("429", 3), ("500", 5), ("slow", 4), ("malformed", 7), ("no_usage", 11), ("not_json", 13)]
    ]
    book = Book(limit=limit)
    with running(recorded(items, faults)) as address:
        outcome = asyncio.run(asking(items, a_config(address, concurrency=32), book))
    assert book.reserved == 0
    assert book.spent <= limit
    assert outcome.replies == len(book.rationales)
    assert outcome.replies + outcome.unreadable == len(book.replies)
    assert len(book.replies) + outcome.gave_up == len(items)
    assert outcome.gave_up + outcome.unreadable == len(book.problems)
    assert outcome.budget_spent is (limit < RICH)
    if limit < RICH:
        assert outcome.replies > 0
        assert limit - book.spent < worst_of(items[-1])


def test_stored_replies_are_those_that_the_server_sent_once() -> None:
    items = [an_item(number) for number in range(60)]
    teacher = recorded(items, [Fault(kind="429", every=2, times=20), Fault(kind="500", every=3, times=10)])
    book = Book()
    with running(teacher) as address:
        asyncio.run(asking(items, a_config(address, concurrency=32), book))
    assert Counter(key for key, _, _ in teacher.served) == Counter(item.key for item in items)


def test_attempts_end_at_their_limit_and_say_why() -> None:
    book, clock = Book(), Clock()
    outcome = run([an_item(1)], book, [Fault(kind="500", times=99)], clock, attempts=8)
    assert outcome == AskOutcome(gave_up=1)
    assert book.states() == ["assumed"] * 8
    assert len(clock.slept) == 7
    assert "8 attempts failed" in book.problems["q1"]
    assert "500" in book.problems["q1"]


def test_teacher_that_takes_no_requests_any_more_ends_the_stage_and_no_item_is_blamed() -> None:
    book = Book()
    with pytest.raises(TeacherDown, match=r"8 attempts failed.*429.*the same command asks for the rest"):
        run([an_item(1), an_item(2)], book, [Fault(kind="429", times=99)], attempts=3)
    assert set(book.states()) == {"released"}
    assert book.problems == {}


def test_one_item_that_always_fails_is_given_up_beside_the_others() -> None:
    book = Book()
    items = [an_item(number) for number in range(20)]
    outcome = run(items, book, [Fault(kind="500", key="q3", times=99)], attempts=3)
    assert outcome == AskOutcome(replies=19, gave_up=1)
    assert set(book.problems) == {"q3"}


def test_teacher_that_fails_again_and_again_ends_the_stage_and_no_item_is_blamed() -> None:
    book = Book()
    items = [an_item(number) for number in range(20)]
    failing = [Fault(kind="500", key=f"q{number}", times=99) for number in range(8, 20)]
    with pytest.raises(TeacherDown, match="500"):
        run(items, book, failing, attempts=2, concurrency=1)
    assert len(book.replies) == 8
    assert book.problems == {}


def test_pauses_grow_and_are_as_long_as_the_teacher_asks() -> None:
    clock = Clock()
    run([an_item(1)], Book(), [Fault(kind="429", times=4), Fault(kind="429", times=1, seconds=77)], clock, attempts=8)
    assert all(0.5 * 2**attempt <= seconds <= 1.5 * 2**attempt for attempt, seconds in enumerate(clock.slept[:4]))
    assert clock.slept[4] == 77


def test_budget_spent_midway_gives_the_rest_up() -> None:
    items = [an_item(number) for number in range(20)]
    limit = worst_of(items[0]) * 3
    book = Book(limit=limit)
    outcome = run(items, book, [Fault(kind="no_usage", times=99)], concurrency=1)
    assert outcome == AskOutcome(replies=3, gave_up=17, budget_spent=True)
    assert set(book.problems.values()) == {"budget spent"}
    assert book.reserved == 0


def test_further_sample_that_fails_does_not_stop_the_item() -> None:
    book = Book()
    with running(recorded([an_item(1)], [Fault(kind="too_long", every=2)])) as address:
        config = a_config(address, concurrency=1)
        outcome = asyncio.run(asking([an_item(1)], config, book, samples=2))
    assert outcome == AskOutcome(replies=1, gave_up=1)
    assert set(book.rationales) == {("q1", 0)}
    assert book.problems == {}


def test_holds_under_way_do_not_end_the_budget_early() -> None:
    items = [an_item(number) for number in range(30)]
    book = Book(limit=30 * 300)
    assert worst_of(items[0]) * 2 < book.limit < worst_of(items[0]) * 32
    outcome = run(items, book, concurrency=32)
    assert outcome == AskOutcome(replies=30)


def test_one_item_that_is_too_dear_leaves_the_others_their_turn() -> None:
    dear = Item(key="q0", question="What is 0 + 0? " + "x" * 9000, split=Split.POOL, text_hash="")
    items = [dear, *(an_item(number) for number in range(1, 21))]
    limit = worst_of(items[1]) * 3
    assert worst_of(dear) > limit
    book = Book(limit=limit)
    outcome = run(items, book, concurrency=8)
    assert outcome == AskOutcome(replies=20, gave_up=1, budget_spent=True)
    assert set(book.problems) == {"q0"}


def test_an_endpoint_that_is_too_busy_for_a_minute_is_waited_for() -> None:
    book, clock = Book(), Clock()
    outcome = run([an_item(1)], book, [Fault(kind="429", times=7)], clock, attempts=2)
    assert outcome == AskOutcome(replies=1)
    assert sum(clock.slept) > 60
    assert book.states() == ["released"] * 7 + ["settled"]


def test_budget_of_zero_asks_nothing() -> None:
    items = [an_item(number) for number in range(5)]
    teacher = recorded(items)
    book = Book(limit=0)
    with running(teacher) as address:
        outcome = asyncio.run(asking(items, a_config(address), book))
    assert outcome == AskOutcome(gave_up=5, budget_spent=True)
    assert teacher.requests == 0


def test_refusal_of_one_item_leaves_the_others_alone() -> None:
    book = Book()
    outcome = run([an_item(1), an_item(2)], book, [Fault(kind="too_long", key="q1")])
    assert outcome == AskOutcome(replies=1, gave_up=1)
    assert sorted(book.states()) == ["released", "settled"]
    assert "maximum context length" in book.problems["q1"]


@pytest.mark.parametrize(
    ("changes", "cure"), [({"model": "gpt-9"}, 'teacher.model = "gpt-9"'), ({}, "environment variable OPENAI_API_KEY")]
)
def test_refusal_of_all_stops_at_once_and_costs_nothing(changes: dict[str, object], cure: str) -> None:
    items = [an_item(number) for number in range(50)]
    teacher = recorded(items, api_key=None if changes else "secret")
    book = Book()
    with running(teacher) as address, pytest.raises(TeacherRefused, match=cure):
        asyncio.run(asking(items, a_config(address, concurrency=4, **changes), book))
    assert set(book.states()) == {"released"}
    assert len(book.charges) <= 8
    assert book.problems == {}


def test_teacher_that_is_down_costs_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    book = Book()
    with pytest.raises(TeacherDown, match=r"cannot be reached.*is the teacher running"):
        asyncio.run(asking([an_item(1)], a_config(address, attempts=3), book))
    assert book.states() == ["released"] * 3
    assert book.problems == {}


def test_unknown_price_sends_nothing() -> None:
    items = [an_item(1)]
    teacher = recorded(items)
    with running(teacher) as address, pytest.raises(UnknownPrice, match=r"teacher\.input_price"):
        asyncio.run(asking(items, a_config(address, input_price=None, output_price=None), Book()))
    assert teacher.requests == 0


def test_nothing_to_ask_asks_nothing() -> None:
    with running(recorded([an_item(1)])) as address:
        assert asyncio.run(asking([], a_config(address), Book())) == AskOutcome()


async def interrupted(items: Sequence[Item], config: TeacherConfig, book: Book, after: float) -> None:
    """Ask, and be cancelled after so many seconds."""
    task = asyncio.create_task(asking(items, config, book))
    await asyncio.sleep(after)
    task.cancel()
    await task


def test_interruption_settles_what_is_under_way_and_sends_nothing_new() -> None:
    items = [an_item(number) for number in range(20)]
    teacher = recorded(items, [Fault(kind="slow", times=99, seconds=1.0)])
    book = Book()
    with running(teacher) as address, pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted(items, a_config(address, concurrency=4), book, after=0.5))
    assert teacher.requests == 4
    assert book.states() == ["settled"] * 4
    assert len(book.rationales) == 4
    assert book.problems == {}


def test_interruption_charges_what_does_not_come_back() -> None:
    items = [an_item(number) for number in range(5)]
    faults = [Fault(kind="slow", times=99, seconds=3.0)]
    book = Book()
    with running(recorded(items, faults)) as address, pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted(items, a_config(address, concurrency=2, timeout=0.8), book, after=0.4))
    assert book.states() == ["assumed"] * 2
    assert book.replies == {}


def test_request_that_never_ends_is_cancelled_after_the_timeout_and_charged() -> None:
    class Stuck:
        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(3600)
            raise AssertionError

        def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
            return input_tokens + output_tokens

    async def stuck(book: Book) -> None:
        config = TeacherConfig(timeout=0.2)
        work = ask(
            asked([an_item(1)]),
            Stuck(),
            book,
            TASK,
            config,
            round_id=1,
            demonstrations=lambda item: (),
            progress=Silent(),
        )
        task = asyncio.create_task(work)
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    book = Book()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(stuck(book), timeout=5))
    assert book.states() == ["assumed"]


def test_interruption_does_not_wait_for_a_pause() -> None:
    class Forever(Clock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(3600)

    async def paused(address: str, book: Book) -> None:
        task = asyncio.create_task(asking([an_item(1)], a_config(address), book, Forever()))
        await asyncio.sleep(0.5)
        task.cancel()
        await task

    book = Book()
    faults = [Fault(kind="429", times=99)]
    with running(recorded([an_item(1)], faults)) as address, pytest.raises(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(paused(address, book), timeout=3))
    assert book.states() == ["released"]


def test_what_was_left_is_asked_by_the_next_call() -> None:
    items = [an_item(number) for number in range(12)]
    teacher = recorded(items, [Fault(kind="slow", times=4, seconds=0.6)])
    book = Book()
    with running(teacher) as address:
        config = a_config(address, concurrency=4)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(interrupted(items, config, book, after=0.3))
        left = [item for item in items if (item.key, 0) not in book.replies]
        asyncio.run(asking(left, config, book))
    assert len(left) == 8
    assert len(book.rationales) == 12
    assert Counter(key for key, _, _ in teacher.served) == Counter(item.key for item in items)
