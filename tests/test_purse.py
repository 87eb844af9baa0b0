"""What the ledger writes down of each charge, and which counters it moves: those of its run, round and domain alone."""

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from loop.config import Config
from loop.errors import BudgetSpent
from loop.records import BATCHED, NO_CAP, Balance, Charge, ChargeState, Currency
from loop.store import claims, money, rounds
from loop.store.database import Store
from loop.store.money import Purse
from tests.builders import RUN, a_store

USD, MINUTES = Currency.USD, Currency.MINUTES
DEAD = f"{socket.gethostname()}:{os.getpid()}:1.00"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


def opened(store: Store, run: str = RUN, usd: int = 1000, minutes: int = 1000) -> Purse:
    purse = Purse(store, run)
    purse.open(usd, minutes)
    return purse


def charge(store: Store, number: int) -> Charge:
    with store.reading() as session:
        return session.get_one(Charge, number)


def counters(store: Store) -> dict[tuple[str, str, str], tuple[int, int, int]]:
    """Limit, spent and reserved by run, currency and scope."""
    with store.reading() as session:
        return {
            (each.run, each.currency.value, each.scope): (each.limit, each.spent, each.reserved)
            for each in session.exec(select(Balance))
        }


def hold(store: Store, purse: Purse, amount: int, currency: Currency = USD, **fields: object) -> int:
    with store.writing() as session:
        return purse.reserve_in(session, currency, "ask", amount, **fields)  # type: ignore[arg-type]


def test_a_charge_says_what_it_pays_who_holds_it_and_when(store: Store) -> None:
    purse, before = opened(store), datetime.now(UTC)
    plain = charge(store, purse.reserve(USD, "ask/1/a", 10))
    assert (plain.run, plain.currency, plain.purpose, plain.reserved, plain.settled) == (RUN, USD, "ask/1/a", 10, 0)
    assert (plain.round_id, plain.domain, plain.model, plain.prompt_type) == (None, "", "", "")
    assert (plain.state, plain.assumed, plain.closed_at) == (ChargeState.RESERVED, False, None)
    assert plain.owner == claims.owner_name()
    assert before <= plain.created_at <= datetime.now(UTC)
    fields = {"round_id": 3, "domain": "sums", "model": "m", "prompt_type": "p", "owner": "batch/7"}
    full = charge(store, hold(store, purse, 20, **fields))
    assert {name: getattr(full, name) for name in fields} == fields
    assert full.purpose == "ask"


def test_a_charge_moves_its_own_counters_when_it_is_made_and_when_it_is_closed(store: Store) -> None:
    purse, other = opened(store), opened(store, "other")
    other.reserve(USD, "ask", 1)
    number = hold(store, purse, 100, round_id=3, domain="sums")
    beside = hold(store, purse, 30, round_id=4, domain="sums")
    still = {
        ("other", "usd", ""): (1000, 0, 1),
        ("other", "minutes", ""): (1000, 0, 0),
        (RUN, "minutes", ""): (1000, 0, 0),
    }
    assert counters(store) == still | {
        (RUN, "usd", ""): (1000, 0, 130),
        (RUN, "usd", "domain/sums"): (NO_CAP, 0, 130),
        (RUN, "usd", "round/3"): (NO_CAP, 0, 100),
        (RUN, "usd", "round/4"): (NO_CAP, 0, 30),
    }
    before = datetime.now(UTC)
    with store.writing() as session:
        purse.settle_in(session, number, 40, output_tokens=17)
    closed = charge(store, number)
    assert (closed.state, closed.settled, closed.assumed, closed.output_tokens) == (ChargeState.SETTLED, 40, False, 17)
    assert before <= (closed.closed_at or before) <= datetime.now(UTC)
    assert closed.closed_at is not None
    purse.release(beside)
    assert (charge(store, beside).state, charge(store, beside).settled) == (ChargeState.RELEASED, 0)
    assert counters(store) == still | {
        (RUN, "usd", ""): (1000, 40, 0),
        (RUN, "usd", "domain/sums"): (NO_CAP, 40, 0),
        (RUN, "usd", "round/3"): (NO_CAP, 40, 0),
        (RUN, "usd", "round/4"): (NO_CAP, 0, 0),
    }
    unknown = purse.reserve(USD, "ask", 7)
    purse.assume(unknown)
    assumed = charge(store, unknown)
    assert (assumed.settled, assumed.assumed, assumed.output_tokens) == (7, True, None)
    assert purse.counters().keys() == {"domain/sums", "round/3", "round/4"}
    assert {each: (row.run, row.limit, row.spent) for each, row in purse.balances().items()} == {
        USD: (RUN, 1000, 47), MINUTES: (RUN, 1000, 0)
    }  # fmt: skip


def test_who_was_never_given_anything_has_nothing_in_both_currencies(store: Store) -> None:
    found = Purse(store, "x").balances()
    assert {each: (row.run, row.currency, row.limit, row.spent) for each, row in found.items()} == {
        USD: ("x", USD, 0, 0), MINUTES: ("x", MINUTES, 0, 0)
    }  # fmt: skip
    with pytest.raises(
        BudgetSpent, match=r"only 0\.000000 of 0\.000000 are left \(0\.000000 spent, 0\.000000 reserved\)"
    ):
        Purse(store, "x").reserve(USD, "ask", 1)


def test_caps_hold_for_what_they_name_until_others_are_set(store: Store) -> None:
    purse = opened(store)
    opened(store, "other").cap({"domain/sums": 5})
    purse.cap({"domain/sums": 50, "round/9": 60})
    hold(store, purse, 50, domain="sums")
    with pytest.raises(BudgetSpent) as caught:
        hold(store, purse, 1, domain="sums")
    assert (caught.value.scope, caught.value.where) == ("domain/sums", "domain sums")
    assert str(caught.value) == (
        "ask may cost 0.000001 usd, but only 0.000000 of 0.000050 are left for domain sums (0.000000 spent, 0.000050 "
        "reserved); raise budget.domains.sums to go on"
    )
    hold(store, purse, 60, round_id=9)
    purse.cap({"round/9": 70})
    hold(store, purse, 500, domain="sums")
    with pytest.raises(BudgetSpent):
        hold(store, purse, 11, round_id=9)
    assert {scope: row.limit for scope, row in purse.counters().items()} == {"domain/sums": NO_CAP, "round/9": 70}
    assert Purse(store, "other").counters()["domain/sums"].limit == 5
    assert purse.balances()[USD].limit == 1000


def test_what_is_refused_in_one_scope_moves_no_other(store: Store) -> None:
    purse = opened(store)
    rounds.open_round(store, "other", {})
    number = rounds.open_round(store, RUN, Config().model_dump(mode="json")).id or 0
    purse.cap({f"round/{number}": 10})
    before = counters(store)
    with pytest.raises(BudgetSpent) as caught:
        hold(store, purse, 11, round_id=number, domain="sums")
    assert (caught.value.scope, caught.value.where) == (f"round/{number}", "round 1")
    assert "left for round 1 (" in str(caught.value)
    assert str(caught.value).endswith("raise budget.usd_per_round to go on")
    assert counters(store) == before
    hold(store, purse, 10, round_id=number, domain="sums")
    with pytest.raises(BudgetSpent, match=r"^ask may cost 0\.001000 minutes, but .*raise budget\.minutes to go on$"):
        [hold(store, purse, 1000, MINUTES) for _ in range(2)]
    with pytest.raises(BudgetSpent, match=r"left for domain a b/c .*raise budget\.domains\.a b/c to go on"):
        [purse.cap({"domain/a b/c": 1}), hold(store, purse, 2, domain="a b/c")]


def test_a_round_that_is_not_stored_is_named_by_its_id(store: Store) -> None:
    purse = opened(store)
    purse.cap({"round/77": 1})
    with pytest.raises(BudgetSpent, match="left for round 77 "):
        hold(store, purse, 2, round_id=77)


def test_nothing_costs_nothing_and_less_than_nothing_is_refused_with_the_amount(store: Store) -> None:
    purse = opened(store, usd=0)
    number = purse.reserve(USD, "free", 0)
    with pytest.raises(ValueError, match=r"^a charge cannot be negative: -3$"):
        purse.reserve(USD, "gift", -3)
    with pytest.raises(ValueError, match=r"^a charge cannot be negative: -4$"):
        purse.settle(number, -4)
    purse.settle(number, 0)
    with pytest.raises(ValueError, match=f"^charge {number} is closed already$"):
        purse.settle(number, 0)


def test_lengths_are_of_the_latest_replies_to_such_prompts_of_every_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(money, "LATEST", 5)
    purses = [opened(store, run) for run in ("one", "two")]
    with store.writing() as session:
        for tokens in range(9):
            purse = purses[tokens % 2]
            number = purse.reserve_in(session, USD, "ask", 1, prompt_type="fresh" if tokens else "other")
            purse.settle_in(session, number, 1, output_tokens=None if tokens == 6 else tokens)
        purses[0].reserve_in(session, USD, "ask", 1, prompt_type="fresh")
    assert purses[0].lengths("fresh") == [3, 4, 5, 7, 8]
    assert purses[1].lengths("other") == [0]
    assert purses[1].lengths("") == []


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seconds=st.lists(st.integers(0, 300), max_size=4))
def test_reviews_are_settled_at_once_and_move_nothing_but_the_minutes_of_their_run(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[int]
) -> None:
    store = a_store(tmp_path_factory.mktemp("purse"))
    purse, other = opened(store), opened(store, "other")
    untouched = [purse.reserve(USD, "ask", 5), other.reserve(MINUTES, "review", 6), purse.reserve(MINUTES, "review", 7)]
    numbers = [purse.reserve(MINUTES, "review", 100) for _ in seconds]
    with store.writing() as session:
        purse.settle_reviews_in(
            session, [(session.get_one(Charge, n), s) for n, s in zip(numbers, seconds, strict=True)]
        )
    assert counters(store) == {
        (RUN, "usd", ""): (1000, 0, 5),
        (RUN, "minutes", ""): (1000, sum(seconds), 7),
        ("other", "usd", ""): (1000, 0, 0),
        ("other", "minutes", ""): (1000, 0, 6),
    }
    for number, amount in zip(numbers, seconds, strict=True):
        row = charge(store, number)
        assert (row.state, row.settled, row.closed_at is None) == (ChargeState.SETTLED, amount, False)
    assert all(charge(store, number).state is ChargeState.RESERVED for number in untouched)
    store.close()


def test_of_the_dead_dollars_are_charged_and_those_of_batches_and_other_runs_are_left(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    purse, other = opened(store), opened(store, "other")
    dead = [hold(store, purse, amount, owner=DEAD) for amount in (10, 20)]
    closed = hold(store, purse, 30, owner=DEAD)
    purse.release(closed)
    left = [
        hold(store, other, 1, owner=DEAD),
        hold(store, purse, 2, MINUTES, owner=DEAD),
        hold(store, purse, 3, owner=f"{BATCHED}7"),
        hold(store, purse, 4),
        hold(store, purse, 5, owner="[fe80::1]:17:1.00"),
    ]
    with caplog.at_level("INFO", "preceptor"):
        assert purse.close_dead_holds() == 2
    told = [(each.getMessage(), each.__dict__["facts"]) for each in caplog.records]
    assert told == [("charge_assumed", {"charge": number}) for number in dead]
    rows = [charge(store, number) for number in dead]
    assert [(each.settled, each.assumed, each.state) for each in rows] == [
        (10, True, ChargeState.SETTLED), (20, True, ChargeState.SETTLED)
    ]  # fmt: skip
    assert all(charge(store, number).state is ChargeState.RESERVED for number in left)
    assert counters(store)[RUN, "usd", ""] == (1000, 30, 12)
    with claims.holding(store, "other", "run", "other", lease_seconds=60):
        assert purse.close_dead_holds() == 0  # whose run is another's is not ours to look after
    with claims.holding(store, RUN, "run", RUN, lease_seconds=60):
        assert purse.close_dead_holds() == 1
    assert purse.close_dead_holds() == 0
