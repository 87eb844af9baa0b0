"""What a round will cost, told before the run has asked anything."""

from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from connectors.cli import app
from connectors.plan import plan
from connectors.progress import RichProgress
from connectors.wiring import Project
from loop.records import Currency
from loop.store import items
from loop.store.money import Purse
from loop.teacher.prompt import request_for
from loop.teacher.send import prompt_type
from tests.builders import an_item
from tests.tiny import tiny_project


def planned(config: Path) -> dict[str, object]:
    found: dict[str, object] = plan(Project(config, RichProgress(Console(quiet=True))))["usd"]
    return found


def test_a_new_run_learns_from_the_replies_of_another_and_keeps_to_the_cap_of_a_round(tmp_path: Path) -> None:
    config = tiny_project(tmp_path, rounds=1)
    project = Project(config, RichProgress(Console(quiet=True)))
    items.add(project.store, [an_item(f"q{number}") for number in range(12)])
    worst = planned(config)
    purse = Purse(project.store, "another")
    purse.open(10**9, 0)
    kind = prompt_type(request_for(an_item("q1"), project.config.task, project.config.teacher, (), 0), "ask")
    with project.store.writing() as session:
        for length in (20, 30, 40):
            charge = purse.reserve_in(session, Currency.USD, "ask/1/q1/0/0", 100, prompt_type=kind)
            purse.settle_in(session, charge, 50, output_tokens=length)

    learned = planned(config)
    assert "other runs" in str(learned["source"])
    assert 0 < learned["low"] <= learned["expected"] <= learned["high"] < worst["expected"]

    cap = learned["low"] / 2
    config.write_text(config.read_text().replace("[budget]", f"[budget]\nusd_per_round = {cap:.9f}"))
    capped = planned(config)
    assert capped["high"] == pytest.approx(cap, abs=1e-8)
    assert "budget.usd_per_round" in str(capped["source"])


def test_a_round_that_revises_is_planned_by_what_revising_costs(tmp_path: Path) -> None:
    config = tiny_project(tmp_path, rounds=2)
    config.write_text(config.read_text().replace("[teacher]", "[teacher]\ndev_items = 0"))
    pool, holdout = str(tmp_path / "pool.jsonl"), str(tmp_path / "holdout.jsonl")
    for words in (["ingest", pool], ["ingest", holdout, "--split", "holdout"], ["run", "--rounds", "1"]):
        assert CliRunner().invoke(app, [*words, "--config", str(config)]).exit_code == 0
    asked = planned(config)
    assert "items asked" in str(asked["source"])

    config.write_text(config.read_text().replace("[teacher]", '[teacher]\nrevise = "teacher_finish"'))
    revised = planned(config)
    assert "none was revised so far" in str(revised["source"])
    assert revised["low"] > asked["high"], "checking step by step sends the question each time"
