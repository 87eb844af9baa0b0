"""Money: no interleaving, crowd or sudden death spends more than the limit."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from loop.errors import BudgetSpent
from loop.ledger import to_micro
from loop.records import Balance, Charge, ChargeState, Currency
from loop.store import claims
from loop.store.database import Store
from loop.store.money import Purse

SPENDER = """
import random, sys
from loop.errors import BudgetSpent
from loop.records import Currency
from loop.store.database import Store
from loop.store.money import Purse

url, seed = sys.argv[1], int(sys.argv[2])
purse, dice = Purse(Store(url), "run"), random.Random(seed)
held = purse.reserve(Currency.USD, "first", 50)
print("holding", flush=True)
sys.stdin.readline()
while True:
    try:
        following = purse.reserve(Currency.USD, "next", dice.randint(1, 50))
    except BudgetSpent:
        continue
    dice.choice([purse.release, purse.assume, lambda charge: purse.settle(charge, 1)])(held)
    held = following
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'store.db'}"


@pytest.fixture(scope="module")
def stores(url: str) -> Iterator[tuple[Store, Store]]:
    """Two stores on one database, as two processes have them."""
    both = (Store(url), Store(url))
    both[0].migrate()
    yield both
    for store in both:
        store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.migrate()
    yield opened
    opened.close()


def opened(store: Store, run: str = "run", *, usd: int = 1000, minutes: int = 1000) -> Purse:
    purse = Purse(store, run)
    purse.open(usd, minutes)
    return purse


def charges(store: Store, run: str = "run") -> list[Charge]:
    with store.reading() as session:
        return list(session.exec(select(Charge).where(Charge.run == run)))


def usd(purse: Purse) -> Balance:
    return purse.balances()[Currency.USD]


def assert_the_balance_is_the_sum_of_its_charges(store: Store, balance: Balance) -> None:
    rows = [charge for charge in charges(store, balance.run) if charge.currency == balance.currency]
    assert balance.spent == sum(charge.settled for charge in rows)
    assert balance.reserved == sum(charge.reserved for charge in rows if charge.state is ChargeState.RESERVED)


# --- amounts --------------------------------------------------------------------------------------------------------


def test_amounts_are_rounded_up_to_the_next_millionth() -> None:
    assert [to_micro(amount) for amount in (0, 0.1, 1.5, 1e-7, 0.0000011, 2)] == [
        0,
        100_000,
        1_500_000,
        1,
        2,
        2_000_000,
    ]


@given(st.floats(min_value=0, max_value=1e9))
def test_a_hold_is_never_below_its_price_and_never_a_millionth_above(amount: float) -> None:
    exact = Fraction(repr(amount)) * 1_000_000
    assert exact <= to_micro(amount) < exact + 1


# --- interleavings --------------------------------------------------------------------------------------------------

Deed = tuple[Literal["reserve", "settle", "release", "assume"], int, int, int]
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "settle", "release", "assume"]),
        st.integers(0, 1),
        st.integers(0, 10),
        st.integers(0, 400),
    ),
    max_size=25,
)


def do(deed: Deed, purse: Purse, held: dict[int, int]) -> None:
    """One deed on one of the open holds; `held` is what the test believes to be open."""
    name, _, which, amount = deed
    if name == "reserve":
        held[purse.reserve(Currency.USD, "deed", amount)] = amount
        return
    if not held:
        return
    charge = sorted(held)[which % len(held)]
    if name == "settle":
        purse.settle(charge, min(amount, held[charge]))
    else:
        getattr(purse, name)(charge)
    del held[charge]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds=DEEDS, limit=st.integers(0, 1000))
def test_no_interleaving_of_two_spenders_passes_the_limit(
    stores: tuple[Store, Store], deeds: list[Deed], limit: int
) -> None:
    run = uuid.uuid4().hex
    purses = [opened(store, run, usd=limit) for store in stores]
    held: dict[int, int] = {}
    for deed in deeds:
        before = usd(purses[0])
        try:
            do(deed, purses[deed[1]], held)
        except BudgetSpent:
            assert before.spent + before.reserved + deed[3] > limit
        after = usd(purses[0])
        assert after.spent + after.reserved <= limit
        assert after.reserved == sum(held.values())
        assert_the_balance_is_the_sum_of_its_charges(stores[0], after)


class Crowd:
    """Workers that share out a number of calls, each reserved and settled at one price."""

    def __init__(self, purses: Sequence[Purse], *, workers: int, calls: int, price: int) -> None:
        self.price = price
        self.admitted: list[int] = []
        self.refused: list[int] = []
        self._turns = iter(range(calls))
        self._lock = threading.Lock()
        self._purses = purses
        self._workers = workers

    def work(self) -> list[Balance]:
        """Make all calls; the balances seen meanwhile."""
        seen: list[Balance] = []
        with ThreadPoolExecutor(self._workers) as pool:
            running = [
                pool.submit(self._call_on, self._purses[number % len(self._purses)]) for number in range(self._workers)
            ]
            while not all(each.done() for each in running):
                seen.append(usd(self._purses[0]))
        for each in running:
            each.result()
        return seen

    def _call_on(self, purse: Purse) -> None:
        while (turn := self._next()) is not None:
            try:
                charge = purse.reserve(Currency.USD, f"call {turn}", self.price)
            except BudgetSpent:
                self.refused.append(turn)
            else:
                purse.settle(charge, self.price)
                self.admitted.append(charge)

    def _next(self) -> int | None:
        with self._lock:
            return next(self._turns, None)


def test_of_5000_calls_by_64_workers_exactly_those_under_the_cap_are_admitted(stores: tuple[Store, Store]) -> None:
    purses = [opened(store, "crowd", usd=7 * 1000 + 6) for store in stores]
    crowd = Crowd(purses, workers=64, calls=5000, price=7)
    seen = crowd.work()
    assert len(seen) > 1
    assert all(balance.spent + balance.reserved <= balance.limit for balance in seen)
    assert (len(crowd.admitted), len(set(crowd.admitted)), len(crowd.refused)) == (1000, 1000, 4000)
    balance = usd(purses[0])
    assert (balance.spent, balance.reserved) == (7 * 1000, 0)
    assert_the_balance_is_the_sum_of_its_charges(stores[0], balance)


# --- sudden death ---------------------------------------------------------------------------------------------------


@contextmanager
def spender(store: Store, seed: int) -> Iterator[subprocess.Popen[str]]:
    """A real process that reserves and closes charges until it is killed, always with a hold open."""
    command = [sys.executable, "-c", SPENDER, store.url, str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_holds_of_killed_processes_are_charged_at_worst_case(store: Store) -> None:
    purse = opened(store, usd=4000)
    dice = random.Random(1)
    with ExitStack() as stack:
        processes = [stack.enter_context(spender(store, seed)) for seed in range(8)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "holding\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in dice.sample(processes, len(processes)):
            time.sleep(dice.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
    orphans = {charge.id: charge for charge in charges(store) if charge.state is ChargeState.RESERVED}
    assert len(orphans) >= len(processes)
    before = usd(purse)
    assert before.spent + before.reserved <= 4000
    assert_the_balance_is_the_sum_of_its_charges(store, before)

    assert purse.close_dead_holds() == len(orphans)

    after = usd(purse)
    assert after.reserved == 0
    assert after.spent == before.spent + before.reserved <= 4000
    assert_the_balance_is_the_sum_of_its_charges(store, after)
    closed = [charge for charge in charges(store) if charge.id in orphans]
    assert all(charge.assumed and charge.settled == charge.reserved for charge in closed)
    assert purse.close_dead_holds() == 0


def test_holds_of_the_living_are_left_alone(store: Store) -> None:
    purse = opened(store)
    own = purse.reserve(Currency.USD, "own", 10)
    with store.writing() as session:
        session.add(
            Charge(
                run="run",
                currency=Currency.USD,
                purpose="a living process",
                reserved=0,
                owner=_name_of_parent(),
                created_at=charges(store)[0].created_at,
            )
        )
    assert purse.close_dead_holds() == 0
    purse.settle(own, 10)


def _name_of_parent() -> str:
    import psutil  # noqa: PLC0415 - only this test looks at another process

    parent = psutil.Process(os.getppid())
    return f"{claims.this_process()[0]}:{parent.pid}:{parent.create_time():.2f}"


def test_holds_of_another_host_are_dead_once_the_run_is_ours(store: Store) -> None:
    purse = opened(store)
    charge = purse.reserve(Currency.USD, "there", 10)
    with store.writing() as session:
        row = session.get_one(Charge, charge)
        row.owner = "elsewhere:17:1.00"
    assert purse.close_dead_holds() == 0
    with claims.holding(store, "run", "run", "run", lease_seconds=60):
        assert purse.close_dead_holds() == 1
    assert usd(purse).spent == 10


def test_minutes_of_the_dead_stay_reserved_for_their_review(store: Store) -> None:
    purse = opened(store)
    charge = purse.reserve(Currency.MINUTES, "review", 10)
    with store.writing() as session:
        session.get_one(Charge, charge).owner = f"{claims.this_process()[0]}:{os.getpid()}:1.00"
    assert purse.close_dead_holds() == 0
    assert purse.balances()[Currency.MINUTES].reserved == 10


# --- one charge -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["settle", "release", "assume"])
@pytest.mark.parametrize("second", ["settle", "release", "assume"])
def test_a_charge_is_closed_once(store: Store, first: str, second: str) -> None:
    purse = opened(store)
    charge = purse.reserve(Currency.USD, "once", 10)
    close = {"settle": lambda: purse.settle(charge, 4), "release": lambda: purse.release(charge)}
    close["assume"] = lambda: purse.assume(charge)
    close[first]()
    before = usd(purse)
    with pytest.raises(ValueError, match="closed already"):
        close[second]()
    assert usd(purse) == before
    assert before.spent == {"settle": 4, "release": 0, "assume": 10}[first]


def test_a_refusal_says_what_was_needed_what_is_left_and_which_key_helps(store: Store) -> None:
    purse = opened(store, usd=2_000_000)
    purse.settle(purse.reserve(Currency.USD, "paid", 900_000), 900_000)
    purse.reserve(Currency.USD, "held", 600_000)
    with pytest.raises(BudgetSpent) as caught:
        purse.reserve(Currency.USD, "ask/3/item-17/0", 500_001)
    assert str(caught.value) == (
        "ask/3/item-17/0 may cost 0.500001 usd, but only 0.500000 of 2.000000 are left "
        "(0.900000 spent, 0.600000 reserved); raise budget.usd to go on"
    )
    assert len(charges(store)) == 2


def test_a_purse_that_was_never_opened_is_empty(store: Store) -> None:
    purse = Purse(store, "unknown")
    assert usd(purse).limit == 0
    with pytest.raises(BudgetSpent, match=r"budget\.minutes"):
        purse.reserve(Currency.MINUTES, "review", 1)


def test_a_cost_above_its_hold_is_booked_as_it_is_and_stops_further_holds(store: Store) -> None:
    purse = opened(store, usd=100)
    purse.settle(purse.reserve(Currency.USD, "dear", 100), 130)
    assert (usd(purse).spent, usd(purse).reserved) == (130, 0)
    with pytest.raises(BudgetSpent, match=r"only 0\.000000 of 0\.000100 are left"):
        purse.reserve(Currency.USD, "more", 1)


def test_amounts_below_zero_are_refused(store: Store) -> None:
    purse = opened(store)
    with pytest.raises(ValueError, match="negative"):
        purse.reserve(Currency.USD, "gift", -1)
    charge = purse.reserve(Currency.USD, "call", 10)
    with pytest.raises(ValueError, match="negative"):
        purse.settle(charge, -1)
    assert (usd(purse).spent, usd(purse).reserved) == (0, 10)


def test_a_raised_limit_admits_more_and_keeps_what_was_spent(store: Store) -> None:
    purse = opened(store, usd=10)
    purse.settle(purse.reserve(Currency.USD, "all", 10), 10)
    with pytest.raises(BudgetSpent):
        purse.reserve(Currency.USD, "more", 1)
    purse.open(20, 0)
    purse.reserve(Currency.USD, "more", 10)
    assert (usd(purse).spent, usd(purse).reserved, usd(purse).limit) == (10, 10, 20)


def test_amounts_beyond_32_bits_are_kept(store: Store) -> None:
    purse = opened(store, usd=to_micro(1_000_000))
    purse.settle(purse.reserve(Currency.USD, "a large campaign", to_micro(900_000)), to_micro(800_000))
    assert usd(purse).spent == 800_000_000_000
