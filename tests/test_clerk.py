"""What many requests write down shares transactions; each is whole or not at all, and no cancellation loses one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loop.errors import BudgetSpent
from loop.records import Currency
from loop.store.asking import RunTill
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.clerk import Clerk
from tests.builders import RUN, a_store


class CountingStore(Store):
    """A store that counts its transactions."""

    transactions = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        self.transactions += 1
        with super().together():
            yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CountingStore]:
    a_store(tmp_path).close()
    opened = CountingStore(f"sqlite:///{tmp_path / 'store.db'}")
    Purse(opened, RUN).open(usd=100, minutes=0)
    yield opened
    opened.close()


def spent_and_held(store: Store) -> tuple[int, int]:
    balance = Purse(store, RUN).balances()[Currency.USD]
    return balance.spent, balance.reserved


def test_calls_of_one_moment_share_a_transaction_and_one_that_does_not_fit_leaves_the_others(
    store: CountingStore,
) -> None:
    till = RunTill(store, RUN, None)
    clerk = Clerk(till)

    async def hold(amount: int) -> int | str:
        try:
            return await clerk.enter(lambda: till.reserve("a", amount))
        except BudgetSpent:
            return "spent"

    async def all_at_once() -> list[int | str]:
        return await asyncio.gather(*(hold(amount) for amount in (40, 70, 60)))

    first, second, third = asyncio.run(all_at_once())
    assert (type(first), second, type(third)) == (int, "spent", int)
    assert store.transactions == 1
    assert spent_and_held(store) == (0, 100)


@pytest.mark.parametrize("ticks", [0, 1, 2])
def test_hold_that_is_cancelled_at_any_moment_is_given_back(store: CountingStore, ticks: int) -> None:
    till = RunTill(store, RUN, None)

    async def cancelled() -> None:
        task = asyncio.create_task(Clerk(till).enter(lambda: till.reserve("a", 40), till.release))
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)

    asyncio.run(cancelled())
    assert spent_and_held(store) == (0, 0)


def test_settlement_that_is_cancelled_is_made_all_the_same(store: CountingStore) -> None:
    till = RunTill(store, RUN, None)
    charge = till.reserve("a", 40)

    async def cancelled() -> None:
        task = asyncio.create_task(Clerk(till).enter(lambda: till.settle(charge, 30)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)

    asyncio.run(cancelled())
    assert spent_and_held(store) == (30, 0)


def test_a_transaction_that_fails_fails_every_call_in_it(store: CountingStore) -> None:
    till = RunTill(store, RUN, None)
    clerk, charge = Clerk(till), till.reserve("a", 40)
    till.settle(charge, 10)

    async def both() -> list[object]:
        calls = [clerk.enter(lambda: till.reserve("b", 40)), clerk.enter(lambda: till.settle(charge, 1))]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(each, ValueError) for each in asyncio.run(both()))
    assert spent_and_held(store) == (10, 0)
