"""Where a run stands, and everything about one item."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from connectors.history import history, history_text
from connectors.status import status, status_text
from loop.config import BudgetConfig, Config, QueryConfig
from loop.errors import PreceptorError
from loop.records import Query, Stage, VerdictKind
from loop.store import certificates, counting, items, pool, reading, rounds
from loop.store.database import Store
from tests.builders import (
    NOON,
    RUN,
    a_campaign,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    an_item,
    checked,
    id_of,
    queried,
    sent_to_review,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


def shown(renderable: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_the_status_of_a_campaign_keeps_its_contract(store: Store) -> None:
    a_campaign(store)
    found = json.loads(json.dumps(status(store, RUN, Config())))
    assert (found["run"], found["round"], found["stage"], found["waiting_for"]) == ("main", 2, "closed", "nothing")
    assert found["budget"]["usd"] == {"limit": 1.0, "spent": 0.006, "reserved": 0.0}
    assert found["budget"]["minutes"] == {"limit": 60.0, "spent": 2.0, "reserved": 0.0}
    assert found["items"] == {
        "pool": 4, "holdout": 20, "seed": 0, "queried": 6, "gold": 2, "silver": 2, "rejected": 2, "undecided": 0,
        "held": 0
    }  # fmt: skip
    first = found["rounds"][0]
    expected = {"round": 1, "queried": 3, "flagged": 2, "audited": 1, "reviewed": 2, "accepted": 2}
    assert expected.items() <= first.items()
    assert (first["usd"], first["minutes"]) == (0.003, 1.0)
    assert first["student"]["accuracy"] == 0.3
    assert first["student"]["n"] == 10
    assert first["student"]["low"] < 0.3 < first["student"]["high"]
    assert [each["candidate"]["accuracy"] for each in found["rounds"]] == [0.3, 0.6]


def test_a_run_without_a_round_waits_for_nothing(store: Store) -> None:
    found = status(store, RUN, Config())
    assert (found["round"], found["stage"], found["rounds"]) == (0, "new", [])
    assert found["waiting_for"] == "nothing"
    assert found["budget"]["usd"]["limit"] == 1.0


def test_a_round_in_review_waits_for_reviewers(store: Store) -> None:
    items.add(store, [an_item("q1")])
    opened = queried(store, a_round(store), ["q1"])
    checked(store, a_reply(store, opened, "q1", steps=["one"], answer=1), 0.9, "odd")
    review = rounds.enter(store, opened, Stage.REVIEW)
    assert status(store, RUN, Config())["waiting_for"] == "nothing"
    sent_to_review(store, review, ["q1"])
    found = status(store, RUN, Config())
    assert found["waiting_for"] == "reviewers"
    assert found["rounds"][0]["student"] is None
    assert "waits for reviewers" in shown(status_text(found))


def test_a_budget_that_admits_no_further_request_is_waited_for(store: Store) -> None:
    a_campaign(store)
    assert status(store, RUN, Config(budget=BudgetConfig(usd=0.0065)))["waiting_for"] == "budget"
    assert status(store, RUN, Config(budget=BudgetConfig(usd=0.1)))["waiting_for"] == "nothing"
    assert status(store, RUN, Config(), waiting_for="budget")["waiting_for"] == "budget"


def test_the_status_for_people_says_what_is_simulated(store: Store) -> None:
    a_campaign(store, simulated=True)
    text = shown(status_text(status(store, RUN, Config())))
    assert "4 verdicts are by a simulated reviewer" in text
    assert "0.600 (" in text


def test_the_status_for_people_says_nothing_of_simulation_where_there_is_none(store: Store) -> None:
    a_campaign(store, simulated=False)
    assert "simulated" not in shown(status_text(status(store, RUN, Config())))


def test_the_history_of_an_item_holds_everything_in_order(store: Store) -> None:
    a_campaign(store)
    found = json.loads(json.dumps(history(store, RUN, "q1")))
    assert found["scores"][0]["parts"] == {"intra": 0.5, "inter": 1.0}
    assert (found["queries"][0]["arm"], found["queries"][0]["probability"]) == ("random", 0.5)
    assert found["prompts"][0]["hash"] == found["replies"][0]["prompt_hash"]
    assert found["replies"][0]["charge"]["settled"] == 0.001
    assert [each["author"] for each in found["rationales"]] == ["teacher", "human"]
    assert found["flags"][0]["check_name"] == "arithmetic"
    assert found["verdicts"][0]["kind"] == "edit"
    assert found["decisions"][-1]["kind"] == "gold"
    assert found["decisions"][-1]["rationale_id"] == found["rationales"][-1]["id"]
    assert [each["round"] for each in found["trained_in"]] == [1, 2]


def test_a_rejected_item_was_never_trained_on(store: Store) -> None:
    a_campaign(store)
    assert history(store, RUN, "q2")["trained_in"] == []
    assert [each["round"] for each in history(store, RUN, "q4")["trained_in"]] == [2]


def test_the_history_names_no_reviewer_and_no_gold_answer(store: Store) -> None:
    a_campaign(store)
    assert "ann@example.org" not in json.dumps(history(store, RUN, "q1"))
    assert "987654" not in json.dumps(history(store, RUN, "h0"))


def test_markup_in_an_item_is_shown_as_it_is(store: Store) -> None:
    items.add(store, [an_item("q1", question="[bold]2[/bold] [/] + 2?")])
    assert "[bold]2[/bold] [/] + 2?" in shown(history_text(history(store, RUN, "q1")))


def test_the_history_for_people_shows_steps_flags_and_verdicts(store: Store) -> None:
    a_campaign(store)
    text = shown(history_text(history(store, RUN, "q1")))
    for part in ("1. 1 + 2 = 3", "flag arithmetic, step 1", "edit by reviewer-1 (simulated), 30 s", "round 1: gold"):
        assert part in text


def test_an_unknown_key_names_the_nearest(store: Store) -> None:
    items.add(store, [an_item("alpha-17"), an_item("beta-3")])
    with pytest.raises(PreceptorError, match="alpha_17: no such item; the nearest key is alpha-17"):
        history(store, RUN, "alpha_17")


def test_an_empty_store_says_so(store: Store) -> None:
    with pytest.raises(PreceptorError, match="ingest"):
        history(store, RUN, "q1")


def test_two_runs_do_not_mix(store: Store) -> None:
    a_campaign(store)
    other = queried(store, a_round(store, run="other"), ["q7"])
    assert id_of(other) == 3
    assert status(store, "other", Config())["items"]["queried"] == 1
    assert status(store, RUN, Config())["items"]["queried"] == 6
    assert history(store, "other", "q1")["rationales"] == []


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(query=QueryConfig(max_asks=1)),
        Config(budget=BudgetConfig(domains={"sums & <b>parts</b>": 0.0})),
        Config(budget=BudgetConfig(domains={"default": 0.0})),
    ],
)
def test_the_database_counts_what_would_be_listed(config: Config, store: Store) -> None:
    a_campaign(store)
    items.add(store, [an_item("more")])
    queried(store, a_round(store), ["q6", "q2", "q5"])
    with store.writing() as session:
        session.add(Query(round_id=3, item_key="q7", position=3, arm="random", audit=True, certify=True))
    a_verdict(store, 2, VerdictKind.ACCEPT, minute=30)
    a_verdict(store, 3, VerdictKind.REJECT, minute=31, reviewer="bob@example.org", annotation="b", deleted_at=NOON)
    listed = [len([*pool.keys(store, name, config)]) for name in (RUN, "other")]
    assert [pool.count(store, name, config) for name in (RUN, "other")] == listed
    given = [each.annotation for _, each in reading.verdicts_of(store, RUN) if each.kind is not None]
    assert [each.annotation for each in counting.verdicts(store, RUN)] == given
    assert counting.held(store, RUN) == sum(audit.held for audit in certificates.audits(store, RUN))
    assert counting.queried(store, RUN)[3] == (4, 1)
