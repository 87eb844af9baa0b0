"""What a campaign says of itself: events with their ids, figures for Prometheus, probes, and a command that is run."""

import io
import json
import logging
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command as alembic
from alembic.config import Config as AlembicConfig
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from sqlalchemy import create_engine
from starlette.testclient import TestClient
from typer.testing import CliRunner

from connectors import campaign, logs, notify
from connectors.cli import app
from connectors.dashboard import Dashboard
from connectors.doctor import diagnose
from connectors.progress import RichProgress
from connectors.site import application
from connectors.web import watched
from connectors.wiring import Project
from loop.config import Config
from loop.events import LOGGER, about, happened
from loop.records import Currency, Round, Stage
from loop.store import items, rounds
from loop.store.database import MIGRATIONS, Store
from loop.store.money import Purse
from tests.builders import RUN, a_campaign, a_reply, a_round, a_store, an_item, queried, sent_to_review
from tests.tiny import tiny_project

HERE = "http://127.0.0.1"
TOKEN = "a long random word"


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    yield
    for handler in list(LOGGER.handlers):
        if handler.get_name() in (logs.FILE, logs.TERMINAL):
            LOGGER.removeHandler(handler)
            handler.close()
    LOGGER.setLevel(logging.NOTSET)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


def configured(config: Path, text: str) -> Path:
    config.write_text(config.read_text(encoding="utf-8") + text, encoding="utf-8")
    return config


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def told(*words: str, config: Path) -> str:
    """What a command says on stdout and stderr."""
    done = CliRunner().invoke(app, [*words, "--config", str(config)])
    return done.output


# --- events ---------------------------------------------------------------------------------------------------------


def test_a_campaign_writes_its_boundaries_with_their_ids_and_no_text_of_an_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-seen")
    config = tiny_project(tmp_path, rounds=1)
    config.write_text(config.read_text().replace('name = "tiny"\n', 'name = "tiny"\nlog = "logs/events.jsonl"\n'))
    for split in ("holdout", "pool"):
        told("ingest", str(tmp_path / f"{split}.jsonl"), "--split", split, config=config)
    told("run", config=config)

    written = (tmp_path / "logs" / "events.jsonl").read_text(encoding="utf-8")
    lines = lines_of(tmp_path / "logs" / "events.jsonl")
    stages = [line["stage"] for line in lines if line["event"] == "stage_ended"]
    assert stages == ["select", "ask", "check", "review", "accept", "train", "evaluate"]
    assert all(line["run"] == "tiny" and line["round"] == 1 for line in lines if line["event"] != "verdicts_pulled")
    happenings = Counter(line["event"] for line in lines)
    assert happenings["request_sent"] == happenings["request_answered"] == happenings["charge_settled"] == 6
    assert happenings["checkpoint_written"] == 1
    asked = next(line["item"] for line in lines if line["event"] == "request_sent")
    of_one = [line for line in lines if line.get("item") == asked]
    assert [line["event"] for line in of_one] == [
        "charge_reserved", "request_sent", "request_answered", "charge_settled"
    ]  # fmt: skip
    assert {line["request"] for line in of_one} == {f"ask/1/{asked}/0"}
    assert len({line["charge"] for line in of_one}) == 1
    assert {line["item"] for line in lines if "item" in line} <= {f"i{number}" for number in range(12)}
    for secret in ("sk-not-to-be-seen", "What is", "Answer the question", " = ", "Bearer"):
        assert secret not in written, secret


def test_verbose_shows_events_on_stderr_only(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    quiet = CliRunner().invoke(app, ["review", "pull", "--config", str(config)])
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    loud = CliRunner().invoke(app, ["--verbose", "review", "pull", "--config", str(config)])
    assert re.search(r"verdicts_pulled .*count=0.* run=tiny", loud.stderr)
    assert loud.stdout == quiet.stdout


def test_ids_stand_in_every_line_within_their_block_and_in_none_after(tmp_path: Path) -> None:
    logs.to_file(tmp_path / "log")
    with about(run="a", round=2):
        with about(item="q1", request="ask/2/q1/0"):
            happened("charge_reserved", charge=7, micro_usd=12)
        happened("stage_ended", stage="ask")
    happened("verdicts_pulled", count=0)
    first, second, third = lines_of(tmp_path / "log")
    assert {key: value for key, value in first.items() if key != "at"} == {
        "event": "charge_reserved", "run": "a", "round": 2, "item": "q1", "request": "ask/2/q1/0", "charge": 7,
        "micro_usd": 12,
    }  # fmt: skip
    assert "item" not in second
    assert "run" not in third


def test_a_log_that_cannot_be_written_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = tmp_path / "config.toml"
    config.write_text('[run]\nlog = "file/log"\n')
    done = CliRunner().invoke(app, ["status", "--config", str(config)])
    assert "run.log:" in str(done.exception)
    assert "name another file" in str(done.exception)


# --- Prometheus -----------------------------------------------------------------------------------------------------


def figures(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """What Prometheus' own parser reads, by name and label values."""
    return {
        (each.name.removeprefix("preceptor_"), tuple(sorted(each.labels.values()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_metrics_are_what_the_store_holds_when_they_are_asked_for(store: Store) -> None:
    client = TestClient(application(Dashboard(store, Config()), None), base_url=HERE)
    before = figures(client.get("/metrics").text)
    assert before["rounds", (RUN,)] == 0
    assert ("student_accuracy", ("accuracy", RUN)) not in before
    a_campaign(store, simulated=False)
    found = figures(client.get("/metrics").text)
    assert found["spent", (RUN, "usd")] == pytest.approx(0.006)
    assert found["spent", (RUN, "minutes")] == pytest.approx(2.0)
    assert found["reserved", (RUN, "usd")] == 0
    assert [found["items", tuple(sorted((RUN, kind)))] for kind in ("gold", "silver", "rejected")] == [2, 2, 2]
    assert found["verdicts", ("edit", RUN, "no")] == found["verdicts", tuple(sorted(("reject", RUN, "no")))] == 2
    assert (found["rounds", (RUN,)], found["rounds_closed", (RUN,)], found["open_reviews", (RUN,)]) == (2, 2, 0)
    assert found["student_accuracy", ("accuracy", RUN)] == pytest.approx(0.6)


def test_metrics_wait_for_the_token_like_every_page(store: Store) -> None:
    client = TestClient(application(Dashboard(store, Config()), TOKEN), base_url=HERE, follow_redirects=False)
    assert client.get("/metrics").status_code == 303
    answer = client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")


# --- probes ---------------------------------------------------------------------------------------------------------


def test_anybody_may_know_that_it_runs_and_is_ready_and_nothing_else(store: Store) -> None:
    client = TestClient(watched(application(Dashboard(store, Config()), TOKEN), store), follow_redirects=False)
    assert client.get("/health").json()["status"] == "UP"
    assert (client.get("/ready").status_code, client.get("/ready").json()) == (200, {"ready": True})
    assert client.get(f"/runs/{RUN}").status_code == 303


def test_a_database_of_another_revision_is_not_ready(database: str) -> None:
    store = Store(database)
    store.migrate()
    with closing(store), TestClient(watched(application(Dashboard(store, Config()), None), store)) as client:
        assert client.get("/ready").status_code == 200
        settings, engine = AlembicConfig(), create_engine(database)
        settings.set_main_option("script_location", str(MIGRATIONS))
        with engine.begin() as settings.attributes["connection"]:
            alembic.downgrade(settings, "-1")
        engine.dispose()
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert re.search(r"is at revision \d+, and this version wants \d+", answer.json()["problem"])


def test_a_database_that_is_gone_is_not_ready_and_its_address_is_not_told(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'nowhere' / 'store.db'}")
    with TestClient(watched(application(Dashboard(store, Config()), None), store)) as client:
        answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "problem": "the database cannot be read"}


# --- the command ----------------------------------------------------------------------------------------------------


def notified(tmp_path: Path, script: str, settings: str = "") -> Project:
    """A project whose rounds wait for people, and whose command is this shell script."""
    config = tiny_project(tmp_path, rounds=1)
    config.write_text(config.read_text().split("[simulated_reviewer]")[0])
    program = tmp_path / "tell"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    configured(config, f'[notify]\ncommand = ["./tell", "--to", "it\'s $HOME"]\ntimeout = 0.5\n{settings}')
    return Project(config, RichProgress(Console(file=io.StringIO(), width=500)))


def waiting(project: Project) -> Round:
    """A round that waits for one review, with nearly all of its dollar left."""
    store = project.store
    items.add(store, [an_item("q1")])
    opened = queried(store, a_round(store, run="tiny"), ["q1"])
    a_reply(store, opened, "q1", steps=["so"], answer=2)
    sent_to_review(store, opened, ["q1"])
    return rounds.enter(store, opened, Stage.REVIEW)


def test_people_are_told_once_a_round_where_to_review(tmp_path: Path) -> None:
    project = notified(tmp_path, 'echo "$1" "$2" >> arguments; cat >> told; echo >> told')
    for split in ("holdout", "pool"):
        told("ingest", str(tmp_path / f"{split}.jsonl"), "--split", split, config=project.path)
    for _ in range(2):
        assert campaign.run(project, rounds_wanted=1, wait=False).outcome is campaign.Outcome.WAITS
    (message,) = lines_of(tmp_path / "told")
    assert (message["event"], message["run"], message["round"]) == ("reviews_wait", "tiny", 1)
    assert message["open_reviews"] > 0
    assert "waits for" in message["text"]
    assert (tmp_path / "arguments").read_text() == "--to it's $HOME\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no route >&2; exit 3", "ended with 3: no route"),
        ("exec sleep 30", "took longer than notify.timeout = 0.5 seconds"),
    ],
)
def test_a_command_that_fails_is_said_and_the_run_goes_on(tmp_path: Path, script: str, said: str) -> None:
    project = notified(tmp_path, script)
    notify.if_reviews_wait(project, waiting(project), "http://board")
    shown = project.progress.console.file
    assert isinstance(shown, io.StringIO)
    assert "waits for 1 reviews at http://board" in shown.getvalue()
    assert said in shown.getvalue()


def test_little_money_is_told_once_a_round_and_enough_is_not(tmp_path: Path) -> None:
    project = notified(tmp_path, "cat >> told; echo >> told", "usd_below = 0.999\n")
    current = waiting(project)
    notify.if_money_is_low(project, current)
    assert not (tmp_path / "told").exists()
    Purse(project.store, "tiny").reserve(Currency.USD, "ask", 1)
    for _ in range(2):
        notify.if_money_is_low(project, current)
    (message,) = lines_of(tmp_path / "told")
    assert (message["event"], message["usd_limit"]) == ("money_low", 1.0)
    assert message["usd_left"] == pytest.approx(0.998999)


def test_doctor_names_a_command_that_is_not_there(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[notify]\ncommand = ["no-such-program"]\n')
    project = Project(config, RichProgress(Console(quiet=True)))
    found = next(each for each in diagnose(config, lambda: project) if each.part == "notify")
    assert not found.fine
    assert "no-such-program is no program" in found.text
