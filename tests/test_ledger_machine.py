"""Money under everything that may happen at once, and under sudden death: no scope passes its limit by a millionth."""

import multiprocessing
import os
import random
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from sqlalchemy.exc import IntegrityError
from sqlmodel import func, select

from loop.config import Config
from loop.errors import BudgetSpent
from loop.records import Balance, Charge, ChargeState, Currency, Item, Prompt, Reply, Split
from loop.store import items, rounds
from loop.store.asking import RoundAskBook
from loop.store.database import Store
from loop.store.money import Purse
from tests import spender

DOMAINS = ("algebra", "sets")
AMOUNT = st.integers(0, 400)
WORKER = st.integers(0, 2)
ITEM = st.integers(0, 5)
A_DEAD_PROCESS = f"{socket.gethostname()}:{os.getpid()}:1.00"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store(database)
    opened.migrate()
    yield opened
    opened.close()


def some_items(number: int) -> list[Item]:
    return [
        Item(key=f"q{n}", question=f"What is {n}?", domain=DOMAINS[n % 2], split=Split.POOL, text_hash=str(n))
        for n in range(number)
    ]


def rows(store: Store, model: type, run: str) -> list:
    with store.reading() as session:
        return list(session.exec(select(model).where(model.run == run)))


def _replies(store: Store) -> int:
    with store.reading() as session:
        return session.exec(select(func.count()).select_from(Reply)).one()


def assert_every_counter_is_the_sum_of_its_entries(store: Store, run: str) -> None:
    charges, counters = rows(store, Charge, run), rows(store, Balance, run)
    for counter in counters:
        own = [each for each in charges if each.currency == counter.currency and counter.scope in each.scopes]
        assert counter.spent == sum(each.settled for each in own), counter.scope
        assert counter.reserved == sum(each.reserved for each in own if each.state is ChargeState.RESERVED)
        assert counter.spent + counter.reserved <= counter.limit, counter.scope
    assert {scope for each in charges for scope in each.scopes} <= {each.scope for each in counters}


def assert_every_reply_has_a_charge_of_its_own(store: Store, round_ids: Sequence[int]) -> int:
    with store.reading() as session:
        replies = [each for each in session.exec(select(Reply)) if each.round_id in round_ids]
        charges = {each.id: each for each in session.exec(select(Charge))}
    assert all(number == 1 for number in Counter(each.charge_id for each in replies).values())
    for reply in replies:
        charge = charges[reply.charge_id]
        assert (charge.state, charge.assumed, charge.round_id) == (ChargeState.SETTLED, False, reply.round_id)
    return len(replies)


class Spending(RuleBasedStateMachine):
    """Three processes that ask for the items of two rounds, die, and are cleared up after."""

    held = Bundle("held")

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store, self.run = store, uuid.uuid4().hex
        items.add(store, some_items(6))
        self.purse = Purse(store, self.run)
        self.purse.open(1000, 1000)
        self.books: dict[int, RoundAskBook] = {}
        self.round_ids = [
            rounds.open_round(store, self.run, Config().model_dump(mode="json")).id or 0 for _ in range(2)
        ]
        self.purse.cap({f"round/{self.round_ids[0]}": 600, "domain/algebra": 500})
        self.kept: set[tuple[int, str]] = set()

    def book(self, number: int) -> RoundAskBook:
        return RoundAskBook(self.store, self.run, self.round_ids[number % 2])

    @rule(target=held, worker=WORKER, item=ITEM, amount=AMOUNT)
    def reserve(self, worker: int, item: int, amount: int) -> tuple[int, int, str, int]:
        book = self.book(worker)
        try:
            charge = book.reserve("ask", amount, item_key=f"q{item}")
        except BudgetSpent as refused:
            counter = {"": self.purse.balances()[Currency.USD], **self.purse.counters()}[refused.scope]
            assert counter.spent + counter.reserved + amount > counter.limit
            return (-1, worker, f"q{item}", 0)
        return (charge, worker, f"q{item}", amount)

    @rule(hold=consumes(held), share=st.floats(0, 1))
    def keep(self, hold: tuple[int, int, str, int], share: float) -> None:
        charge, worker, key, amount = hold
        if charge < 0:
            return
        round_id = self.round_ids[worker % 2]
        reply = spender.a_reply(round_id, key, 0)
        args = (charge, int(amount * share), Prompt(hash=spender.PROMPT, body={}), reply, None)
        if (round_id, key) in self.kept:
            with pytest.raises(IntegrityError):
                self.book(worker).keep(*args)
            self.book(worker).assume(charge)
        else:
            self.book(worker).keep(*args)
            self.kept.add((round_id, key))

    @rule(hold=consumes(held), deed=st.sampled_from(["release", "assume", "settle"]))
    def close(self, hold: tuple[int, int, str, int], deed: str) -> None:
        charge, worker, _, amount = hold
        if charge >= 0:
            getattr(self.book(worker), deed)(charge, *([amount // 2] if deed == "settle" else []))

    @rule(hold=consumes(held))
    def die(self, hold: tuple[int, int, str, int]) -> None:
        if hold[0] >= 0:
            with self.store.writing() as session:
                session.get_one(Charge, hold[0]).owner = A_DEAD_PROCESS

    @rule()
    def clear_up(self) -> None:
        dead = [each for each in self.open() if each.owner == A_DEAD_PROCESS]
        assert self.purse.close_dead_holds() == len(dead)
        closed = {each.id: each for each in rows(self.store, Charge, self.run)}
        assert all(closed[each.id].assumed and closed[each.id].settled == each.reserved for each in dead)

    @rule(amounts=st.lists(st.tuples(ITEM, st.integers(0, 150)), min_size=2, max_size=6))
    def crowd(self, amounts: list[tuple[int, int]]) -> None:
        def call(number: int) -> None:
            item, amount = amounts[number]
            try:
                charge = self.book(number).reserve("crowd", amount, item_key=f"q{item}")
            except BudgetSpent:
                return
            self.book(number).settle(charge, amount // 3)

        with ThreadPoolExecutor(len(amounts)) as pool:
            list(pool.map(call, range(len(amounts))))

    @invariant()
    def counters_are_sums_and_below_their_limits(self) -> None:
        assert_every_counter_is_the_sum_of_its_entries(self.store, self.run)

    @invariant()
    def no_reply_is_paid_twice(self) -> None:
        assert assert_every_reply_has_a_charge_of_its_own(self.store, self.round_ids) == len(self.kept)

    def open(self) -> list[Charge]:
        return [each for each in rows(self.store, Charge, self.run) if each.state is ChargeState.RESERVED]


@pytest.mark.parametrize("examples", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_no_order_of_spending_dying_and_clearing_up_breaks_the_ledger(store: Store, examples: int) -> None:
    run_state_machine_as_test(
        lambda: Spending(store),
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_fifty_processes_killed_while_they_spend_leave_a_true_ledger(store: Store) -> None:
    processes_wanted, limit = 50, 8_000
    items.add(store, some_items(processes_wanted))
    purse = Purse(store, spender.RUN)
    purse.open(limit, 0)
    opened = rounds.open_round(store, spender.RUN, Config().model_dump(mode="json"))
    purse.cap({"domain/sets": 3_000})
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["tests.spender"])
    start = forked.Barrier(processes_wanted + 1)
    processes = [
        forked.Process(target=spender.spend, args=(store.url, opened.id, number, start), daemon=True)
        for number in range(processes_wanted)
    ]
    for process in processes:
        process.start()
    start.wait(120)
    until = time.monotonic() + 60
    while not _replies(store) and time.monotonic() < until:
        time.sleep(0.01)
    dice = random.Random(1)
    for process in dice.sample(processes, len(processes)):
        time.sleep(dice.uniform(0, 0.1))
        process.kill()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * processes_wanted

    assert_every_counter_is_the_sum_of_its_entries(store, spender.RUN)
    orphans = [each for each in rows(store, Charge, spender.RUN) if each.state is ChargeState.RESERVED]
    assert purse.close_dead_holds() == len(orphans) >= processes_wanted
    assert_every_counter_is_the_sum_of_its_entries(store, spender.RUN)
    assert assert_every_reply_has_a_charge_of_its_own(store, [opened.id or 0]) > 0
    usd = purse.balances()[Currency.USD]
    assert (usd.reserved, usd.spent <= limit) == (0, True)
    assert len({each.owner for each in rows(store, Charge, spender.RUN)}) == processes_wanted
