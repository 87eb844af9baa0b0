"""Holds as long as nearly all replies were: a cap near the true cost finishes, and truncation is paid for once."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.openai_teacher import OpenAITeacher
from connectors.recorded_teacher import RecordedTeacher, Recording, running
from loop.config import BudgetConfig, Config, TaskConfig
from loop.ledger import HOLD_LEVEL, ROOM, caps, longest_reply
from loop.records import Charge, ChargeState, Item, Round
from loop.store import asking, pool, rounds
from loop.store import items as item_store
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.ask import AskOutcome, ask
from loop.teacher.prompt import request_for
from loop.teacher.send import prompt_type
from tests.builders import RUN, a_round, a_store, an_item, id_of, queried
from tests.test_ask import Clock, Silent, a_config
from tests.test_ledger_machine import assert_every_counter_is_the_sum_of_its_entries, rows

N = 200
RICH = 10**9


def some_items(n: int = N, domain: str = "default") -> list[Item]:
    return [an_item(f"q{number}", domain=domain) for number in range(n)]


def a_teacher(items: Sequence[Item], lengths: Sequence[int]) -> RecordedTeacher:
    """A teacher whose reply to an item has so many tokens."""
    return RecordedTeacher(
        [
            Recording(key=item.key, question=item.question, steps=("so it is",), answer="4", output_tokens=length)
            for item, length in zip(items, lengths, strict=True)
        ]
    )


def around(middle: float, n: int = N, seed: int = 0) -> list[int]:
    """Lengths as replies have them: most near the middle, a few much longer."""
    dice = random.Random(seed)
    return [round(middle * dice.lognormvariate(0, 0.35)) for _ in range(n)]


def asked(
    store: Store, opened: Round, teacher: RecordedTeacher, items: Sequence[Item], **settings: object
) -> AskOutcome:
    """What comes of asking the items in a round."""
    with running(teacher) as address:
        config = a_config(address, input_price=0.01, output_price=2.0, **settings)
        return asyncio.run(
            ask(
                asking.missing(store, id_of(opened), 1),
                OpenAITeacher(config),
                asking.RoundAskBook(store, opened.run, id_of(opened), config),
                TaskConfig(),
                config,
                round_id=id_of(opened),
                demonstrations=lambda item: (),
                progress=Silent(),
                sleep=Clock().sleep,
            )
        )


def a_campaign(folder: Path, items: Sequence[Item], budget: int) -> tuple[Store, Round]:
    store = a_store(folder)
    item_store.add(store, [Item(**item.model_dump()) for item in items])
    return store, queried(store, a_round(store, budget=budget), [item.key for item in items])


def true_cost(folder: Path, items: Sequence[Item], lengths: Sequence[int]) -> int:
    """What the campaign costs where nothing is cut off: by a run whose budget and holds do not matter."""
    store, opened = a_campaign(folder, items, RICH)
    config = {"max_completion_tokens": max(lengths) + 1}
    longest = a_teacher(items, lengths)
    asked(store, opened, longest, items, **config)
    prices = [each.settled for each in rows(store, Charge, RUN) if each.output_tokens is not None]
    assert len(prices) == len(items)
    store.close()
    return sum(prices)


def test_a_cap_of_a_tenth_above_the_true_cost_finishes_with_learned_holds_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, lengths = some_items(), around(100)
    folders = [tmp_path / name for name in ("true", "learned", "fixed")]
    for folder in folders:
        folder.mkdir()
    cost = true_cost(folders[0], items, lengths)
    longest = {"max_completion_tokens": 4000, "concurrency": 4}

    store, opened = a_campaign(folders[1], items, budget=cost * 11 // 10)
    outcome = asked(store, opened, a_teacher(items, lengths), items, **longest)
    spent = Purse(store, RUN).balances()
    assert outcome == AskOutcome(replies=N)
    assert max(balance.spent for balance in spent.values()) <= cost * 11 // 10
    assert_every_counter_is_the_sum_of_its_entries(store, RUN)
    store.close()

    monkeypatch.setattr("loop.teacher.send.longest_reply", lambda lengths, most: most)
    store, opened = a_campaign(folders[2], items, budget=cost * 11 // 10)
    outcome = asked(store, opened, a_teacher(items, lengths), items, **longest)
    assert outcome.budget_spent
    assert outcome.replies < N
    store.close()


def test_a_reply_that_a_learned_hold_cut_off_is_paid_and_asked_for_again_in_full(tmp_path: Path) -> None:
    items = some_items(60)
    store, opened = a_campaign(tmp_path, items, RICH)
    outcome = asked(store, opened, a_teacher(items, [20] * 59 + [300]), items, concurrency=1)
    assert outcome == AskOutcome(replies=60)
    last = [each for each in rows(store, Charge, RUN) if each.purpose.startswith(f"ask/{opened.id}/q59/")]
    assert [each.purpose[-1] for each in last] == ["0", "1"]
    assert [each.state for each in last] == [ChargeState.SETTLED] * 2
    assert [each.output_tokens for each in last] == [None, 300]
    assert 0 < last[0].settled < last[1].settled
    store.close()


def test_a_reply_that_is_too_long_even_in_full_is_asked_for_twice_and_no_more(tmp_path: Path) -> None:
    items = some_items(60)
    store, opened = a_campaign(tmp_path, items, RICH)
    teacher = a_teacher(items, [20] * 59 + [5000])
    outcome = asked(store, opened, teacher, items, concurrency=1)
    assert outcome == AskOutcome(replies=59, unreadable=1)
    assert teacher.requests == 61
    store.close()


def test_what_one_run_learned_holds_for_the_next_on_the_database(tmp_path: Path) -> None:
    items = some_items(60)
    store, opened = a_campaign(tmp_path, items, RICH)
    asked(store, opened, a_teacher(items, [20] * 60), items)
    request = request_for(items[0], TaskConfig(), a_config("http://127.0.0.1:1/v1"), (), 0)
    learned = Purse(store, "another").lengths(prompt_type(request, "ask/7/q/0/0"))
    assert learned == [20] * 60
    assert longest_reply(learned, 800) == 20 + ROOM
    assert Purse(store, RUN).lengths(prompt_type(request, "judge/7/q/0/0")) == []
    store.close()


def test_the_most_is_held_until_enough_replies_came() -> None:
    assert longest_reply([], 800) == 800
    assert longest_reply([10] * 48, 800) == 800
    assert longest_reply([10] * 49, 800) == 10 + ROOM
    assert longest_reply([900] * 49, 800) == 800


@given(st.integers(0, 10**6), st.integers(49, 300))
def test_a_next_reply_fits_its_hold_as_often_as_promised(seed: int, n: int) -> None:
    dice = random.Random(seed)
    drawn = [[round(dice.lognormvariate(5, 0.5)) for _ in range(n + 1)] for _ in range(60)]
    fits = sum(lengths[-1] <= longest_reply(lengths[:-1], 10**6) for lengths in drawn)
    assert fits >= 60 * HOLD_LEVEL - 9  # beyond six standard errors


def test_a_domain_whose_cap_is_reached_leaves_the_others_alone(tmp_path: Path) -> None:
    items = [an_item(f"q{n}", domain=("algebra", "sets")[n % 2]) for n in range(40)]
    store, opened = a_campaign(tmp_path, items, RICH)
    Purse(store, RUN).cap(caps(BudgetConfig(domains={"sets": 0.003}), id_of(opened)))
    outcome = asked(store, opened, a_teacher(items, [200] * 40), items)
    assert not outcome.budget_spent
    assert outcome.replies + outcome.gave_up == 40
    problems = {query.item_key: query.problem for query in rounds.queries(store, id_of(opened)) if query.problem}
    assert set(problems.values()) == {"budget of domain sets spent"}
    assert {int(key[1:]) % 2 for key in problems} == {1}
    counters = Purse(store, RUN).counters()
    assert 0 < counters["domain/sets"].spent <= 3000 < counters["domain/algebra"].spent
    assert_every_counter_is_the_sum_of_its_entries(store, RUN)
    capped = Config(budget=BudgetConfig(domains={"sets": 0.003}))
    assert {item.domain for item in pool.stream(store, RUN, capped)} == {"algebra"}
    raised = Config(budget=BudgetConfig(domains={"sets": 3.0}))
    assert {item.domain for item in pool.stream(store, RUN, raised)} == {"algebra", "sets"}
    store.close()


def test_a_domain_that_may_cost_nothing_is_not_picked(tmp_path: Path) -> None:
    store, _ = a_campaign(tmp_path, [an_item("q0", domain="sets"), an_item("q1", domain="algebra")], RICH)
    nothing = Config(budget=BudgetConfig(domains={"sets": 0.0}))
    assert [*pool.keys(store, RUN, nothing)] == ["q1"]
    store.close()


def test_a_round_spends_no_more_than_its_share(tmp_path: Path) -> None:
    items = some_items(40)
    store, first = a_campaign(tmp_path, items, RICH)
    opened = queried(store, a_round(store, run="second", budget=RICH), [item.key for item in items])
    Purse(store, "second").cap(caps(BudgetConfig(usd_per_round=0.003), id_of(opened)))
    outcome = asked(store, opened, a_teacher(items, [200] * 40), items)
    assert outcome.budget_spent
    assert 0 < outcome.replies < 40
    assert Purse(store, "second").counters()[f"round/{opened.id}"].spent <= 3000
    problems = {query.problem for query in rounds.queries(store, id_of(opened))} - {None}
    assert (id_of(opened), opened.number) == (id_of(first) + 1, 1)
    assert problems == {"budget of round 1 spent"}
    store.close()


def test_caps_that_the_config_no_longer_has_are_lifted(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    purse = Purse(store, RUN)
    purse.open(10, 0)
    purse.cap({"domain/sets": 5})
    purse.cap({})
    assert purse.counters()["domain/sets"].limit > 10**12
    assert Config().budget.domains == {}
    store.close()
