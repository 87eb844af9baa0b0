"""Simulated campaigns side by side: every cell is a whole campaign, kept when done, and compared over seeds."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from filelock import FileLock
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from connectors import charts
from connectors.cli import app
from connectors.coverage import Coverage, coverage
from connectors.progress import RichProgress, Terminal
from connectors.simulate import (
    ITEMS,
    Cell,
    Failed,
    Simulated,
    _failures,
    _folder,
    _settings_hash,
    all_results,
    draw,
    simulate,
    summary,
    summary_text,
)
from connectors.wiring import Project
from loop.acquisitions import Acquisition
from loop.config import load
from loop.errors import AlreadyWorking, BadConfig, BadRow, PoolEmpty, PreceptorError
from loop.ports import Silent
from loop.query.acquisition import ACQUISITIONS
from loop.records import Checkpoint, Split
from loop.stages.pruning import remove_all_weights
from loop.store import checkpoints, items
from loop.store.database import Store
from review.simulated import Truth, read_truth
from tests.builders import a_holdout, a_number, an_item
from tests.forked import preceptor
from tests.test_campaign import ingested
from tests.test_start import INTERRUPTIBLE
from tests.tiny import tiny_project


def result(acquisition: str, seed: int, *accuracies: float | None, usd: float = 0.1) -> dict[str, Any]:
    """A campaign whose rounds cost alike; None is a round without a student."""
    rounds = [
        {"usd_so_far": usd * n, "student": None if each is None else {"accuracy": each}, "accepted": 3 * bool(each)}
        for n, each in enumerate(accuracies, start=1)
    ]
    ended = {"outcome": "finished", "text": f"finished: {len(rounds)} rounds closed", "early": False}
    return {"acquisition": acquisition, "seed": seed, "rounds": rounds, "ended": ended}


def ended_early(found: dict[str, Any], text: str) -> dict[str, Any]:
    return {**found, "ended": {"outcome": "budget", "text": text, "early": True}}


def test_gains_are_paired_by_seed_and_have_an_interval() -> None:
    results = [result("random", seed, 0.1 * seed, 0.1 * seed + 0.1) for seed in range(4)]
    results += [result("margin", seed, 0.1 * seed + 0.05, 0.1 * seed + 0.15) for seed in range(3)]
    random, margin = summary(results)
    assert (random["gain"], random["interval"]) == (None, None)
    assert margin["gain"] == pytest.approx(0.05)
    assert margin["interval"] == (pytest.approx(0.05), pytest.approx(0.05))


def test_the_interval_of_few_seeds_is_students() -> None:
    gains = (0.01, 0.02, 0.06)
    results = [result("random", seed, 0.5) for seed in range(3)]
    results += [result("margin", seed, 0.5 + gain) for seed, gain in enumerate(gains)]
    _, margin = summary(results)
    low, high = margin["interval"]
    assert low == pytest.approx(0.03 - 4.302653 * 0.0264575 / 3**0.5, abs=1e-6)
    assert high == pytest.approx(0.03 + 4.302653 * 0.0264575 / 3**0.5, abs=1e-6)


def test_the_means_are_of_the_last_students() -> None:
    results = [result("random", seed, 0.1 * seed, 0.1 * seed + 0.1) for seed in range(4)]
    results += [result("margin", seed, 0.1 * seed + 0.05, 0.1 * seed + 0.15) for seed in range(3)]
    _, margin = summary(results)
    assert margin["last"] == pytest.approx(0.25)
    assert margin["usd"] == pytest.approx(0.2)


def test_the_same_accuracies_for_half_the_dollars_are_a_gain() -> None:
    [_, cheap] = summary([result("random", 0, 0.2, 0.4, 0.6, 0.8), result("margin", 0, 0.2, 0.4, 0.6, 0.8, usd=0.05)])
    assert cheap["gain"] == pytest.approx(np.mean([0.4, 0.8]) - np.mean([0.2, 0.4]))  # from 0.1 to 0.2 dollars


def test_a_budget_that_was_spent_early_takes_the_late_rounds_from_nobody() -> None:
    [_, dear] = summary([result("random", 0, 0.2, 0.4, 0.6, 0.8), result("margin", 0, 0.4, 0.8, usd=0.2)])
    assert dear["gain"] == pytest.approx(0.0)  # after 0.2 dollars both are at 0.4, after 0.4 dollars at 0.8


def test_a_round_without_a_student_keeps_its_place() -> None:
    late = [result("margin", seed, None, 0.4, 0.6) for seed in range(2)]
    [_, margin] = summary([*(result("random", seed, 0.2, 0.4, 0.6) for seed in range(2)), *late])
    assert margin["gain"] == pytest.approx(0.0)
    assert margin["mean"] == pytest.approx(0.5)


def test_one_seed_gives_no_interval_and_seeds_without_a_student_are_named() -> None:
    results = [
        result("random", 0, 0.2),
        result("margin", 0, 0.4),
        result("margin", 1, None, None),
        result("x", 0, None),
    ]
    rows = summary(results)
    assert [(row["acquisition"], row["seeds"], row["interval"]) for row in rows] == [
        ("random", 1, None), ("margin", 1, None), ("x", 0, None),
    ]  # fmt: skip
    assert [row["without_student"] for row in rows] == [[], [1], [0]]
    said = shown(summary_text(rows))
    assert "margin: no student in any round of seed 1, which counts nowhere: nothing was accepted\n" in said
    assert "x: no student in any round of seed 0" in said


def test_why_a_campaign_ended_early_or_without_a_student_is_told() -> None:
    poor = "budget spent: the next request does not fit"
    unlearned = result("d", 0, None)
    unlearned["rounds"][0]["accepted"] = 4
    old = {key: each for key, each in result("e", 0, None).items() if key != "ended"}
    whole = result("a", 0, 0.2, 0.3)
    results = [whole, ended_early(result("b", 1, 0.4), poor), ended_early(result("c", 2, None), poor), unlearned, old]
    rows = summary(results)
    assert [row["ended"] for row in rows[:3]] == [
        [], [{"seed": 1, "rounds": 1, "why": poor}], [{"seed": 2, "rounds": 1, "why": poor}],
    ]  # fmt: skip
    said = shown(summary_text(rows))
    assert f"b: seed 1 ended after round 1: {poor}\n" in said
    assert f"c: no student in any round of seed 2, which counts nowhere: {poor}\n" in said
    assert "d: no student in any round of seed 0, which counts nowhere: none of 4 accepted rationales could be" in said
    assert "e: no student in any round of seed 0, which counts nowhere: why is not known: an older version ran" in said


def test_names_and_figures_are_whole_in_a_narrow_window() -> None:
    names = get_args(Acquisition)
    gains = [(0.5 + seed / 10 + at / 50) for at, _ in enumerate(names) for seed in range(2)]
    results = [result(name, seed, gains[2 * at + seed]) for at, name in enumerate(names) for seed in range(2)]
    said = shown(summary_text(summary(results)), width=80)
    assert "…" not in said
    words = said.split()
    assert {*names} <= {*words}
    assert {"0.1000", "0.550", "-0.160", "(-0.160", "-0.160)"} <= {*words}


def test_campaigns_that_share_no_dollars_are_named_and_not_compared(tmp_path: Path) -> None:
    results = [result("random", 0, 0.2, 0.3), result("margin", 0, 0.5, 0.6, usd=3.0)]
    [_, margin] = summary(results)
    assert (margin["gain"], margin["mean"], margin["apart"]) == (None, None, [0])
    assert "margin: seed 0 shares no dollars with random" in shown(summary_text([margin]))
    draw(results, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")


def test_without_random_it_is_said_that_nothing_is_compared_with_it() -> None:
    note = "no campaign of random is done, so nothing is compared with it; --acquisition random runs them"
    assert note in shown(summary_text(summary([result("margin", 0, 0.5)])))
    assert note not in shown(summary_text(summary([result("margin", 0, 0.5), result("random", 0, 0.4)])))


def test_what_an_earlier_call_simulated_of_random_is_compared_and_drawn(tmp_path: Path) -> None:
    """Of the same seeds; an earlier call's other functions are drawn, and not in the table."""
    config = ingested(tiny_project(tmp_path))
    project = Project(config, RichProgress(Console(quiet=True)))
    stored = [
        *(result(name, seed, accuracy) for name, accuracy in (("margin", 0.5), ("random", 0.4)) for seed in range(2)),
        result("entropy", 0, 0.6),
    ]
    with closing(project.store):
        folder = _folder(project, 1)
        for each in stored:
            (folder / f"{each['acquisition']}-{each['seed']}.json").write_text(json.dumps(each))
        found = simulate(project, [Cell("margin", 0)], rounds=1, jobs=1)
        assert found.results == [stored[0]]
        assert found.compared == [stored[0], stored[2]]
        assert found.as_json()["acquisitions"][0]["gain"] == pytest.approx(0.1)
        asked = simulate(project, [Cell("random", 1), Cell("margin", 1)], rounds=1, jobs=1)
        assert asked.compared == [stored[3], stored[1]]
    assert all_results(folder) == [stored[4], *stored[:4]]
    words = ["simulate", "--acquisition", "margin", "--seeds", "1", "--rounds", "1", "--json", "--config", str(config)]
    told = CliRunner().invoke(app, words)
    assert [each["acquisition"] for each in json.loads(told.stdout)["cells"]] == ["margin", "random"]
    drawn = (folder / "curves.svg").read_text()
    assert all(name in drawn for name in ("margin", "random", "entropy"))


def test_seeds_are_drawn_over_the_dollars_that_all_of_them_spent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(charts, "comparison", lambda curves: drawn.update(curves) or "")
    draw([result("random", 0, 0.2, 0.4, 0.6), result("random", 1, None, 0.4, 0.8, 0.9)], tmp_path / "curves.svg")
    usd, accuracy = drawn["random"]
    assert usd == pytest.approx([0.2, 0.3])
    assert accuracy == pytest.approx(np.array([[0.4, 0.6], [0.4, 0.8]]))


def test_other_replies_or_another_truth_are_another_simulation(tmp_path: Path) -> None:
    config = load(tiny_project(tmp_path))

    def named() -> str:
        return _settings_hash(config, tmp_path, [], 2)

    before = named()
    assert named() == before
    for name in ("recorded.jsonl", "truth.jsonl"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("What", "what").replace('"i0"', '"j0"'))
        assert named() != before
        (tmp_path / name).write_text(text)
    assert named() == before
    (tmp_path / "truth.jsonl").unlink()
    with pytest.raises(BadConfig, match=r"truth = 'truth\.jsonl' cannot be read"):
        named()


def test_a_simulation_begins_with_the_items_of_the_project_as_they_are(tmp_path: Path) -> None:
    project = Project(a_project(tmp_path), RichProgress(Console(quiet=True)))
    with closing(project.store) as store:
        items.add(store, [an_item(f"i{n}", choices=["a", "b"]) for n in range(5)])
        items.add(store, [*a_holdout(2), an_item("s", Split.SEED, steps=["One."], answer=a_number(1))])
        folder = _folder(project, 2)
        with closing(Store(f"sqlite:///{folder / ITEMS}")) as copy:
            rows = [item.model_dump(mode="json") for item in items.in_order(copy)]
            assert rows == [item.model_dump(mode="json") for item in items.in_order(store)]
        assert len(rows) == 8
        assert folder.name == _settings_hash(project.config, tmp_path, rows, 2)
        assert _folder(project, 2) == folder
        items.add(store, [an_item("new")])
        assert _folder(project, 2) != folder


def test_the_name_of_a_simulation_is_that_of_its_settings_and_rows_as_one_json(tmp_path: Path) -> None:
    config, rows = load(a_project(tmp_path)), [{"key": "é", "arrival": 1}, {"key": "b", "arrival": 2}]
    body = config.model_dump(mode="json", exclude={"run": True, "query": {"acquisition"}, "tracking": True})
    for some in ([], rows[:1], rows):
        told = hashlib.sha256(json.dumps([body, some, 3], sort_keys=True).encode()).hexdigest()
        assert _settings_hash(config, tmp_path, iter(some), 3) == told[:12]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"key": "a", "answer": "5", "steps": "One two."}', r'steps: expected a list of texts, found "One two\."; wr'),
        ('{"key": "a", "answer": "5", "steps": [["One."]]}', "steps: number 1 is no text: a list; put it"),
        ('{"key": "a", "answer": "5", "steps": ["One.", 2]}', "steps: number 2 is no text: 2; put it between quotes"),
        ('{"key": "a", "answer": "5", "steps": null}', "steps: expected a list of texts, found null"),
        ('{"key": "a", "answer": "5", "steps": [], "wrong": "One."}', 'wrong: expected a list of texts, found "One."'),
        ('{"key": "a", "answer": "5", "steps": [], "wrong": [1]}', "wrong: number 1 is no text: 1"),
        ('{"key": 7, "answer": "5", "steps": []}', "key: expected the item's key as text, found 7; put it"),
        ('{"key": "a", "answer": true, "steps": []}', "answer: expected text or a number, found true; put it between"),
        ('{"key": "a", "answer": ["5"], "steps": []}', "answer: expected text or a number, found a list"),
        ('{"key": "a", "answer": NaN, "steps": []}', "answer: expected text or a number, found NaN"),
        ('{"key": "a", "answer": -Infinity, "steps": []}', "answer: expected text or a number, found -Infinity"),
        ('{"key": "a", "answer": 1e999, "steps": []}', "answer: expected text or a number, found Infinity"),
        ('{"key": "a", "steps": []}', "answer is missing; a truth has key, answer and steps"),
        ('["a"]', "expected a JSON object with key, answer and steps, found a list"),
        ('{"key": "a"', "expected a JSON object with key, answer and steps"),
        (f'{{"key": "a", "answer": "5", "steps": "{"x" * 5000}"}}', "steps: expected .*, found .{0,70} …; write"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_truth_is_named_with_its_key_and_the_cure(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_text(f'{{"key": "b", "answer": 5, "steps": ["2 + 3 = 5"]}}\n{line}\n')
    with pytest.raises(BadRow, match=rf"truth\.jsonl:2: {said}"):
        read_truth(file)


def test_the_truth_is_read_line_by_line_whatever_its_texts_hold(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    rows = [
        {"key": "a", "answer": 5, "steps": ["One\u2028two."], "wrong": None},
        {"key": "b", "answer": "x", "steps": []},
    ]
    file.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert read_truth(file) == {"a": Truth("5", ("One\u2028two.",)), "b": Truth("x", ())}


def test_a_truth_that_is_not_utf_8_is_named_so_and_one_with_its_mark_is_read(tmp_path: Path) -> None:
    file, row = tmp_path / "truth.jsonl", '{"key": "a", "answer": "é", "steps": []}\n'
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"):
        file.write_bytes(row.encode(encoding))
        with pytest.raises(BadRow, match=r"truth\.jsonl:1: not UTF-8; save the file as UTF-8"):
            read_truth(file)
    file.write_text(row, encoding="utf-8-sig")
    assert read_truth(file) == {"a": Truth("é", ())}


def test_a_campaign_that_fails_is_told_while_others_run_and_holds_up_none() -> None:
    fails, runs = Future[None](), Future[None]()
    fails.set_exception(BadConfig("the truth lacks a row"))
    said: list[str] = []

    class Told(Silent):
        def say(self, text: str) -> None:
            said.append(text)
            runs.set_result(None)  # until this is said the other one runs

    running = {runs: Cell("random", 1), fails: Cell("random", 0)}
    assert [each.cell for each in _failures(running, Told(), Silent())] == [Cell("random", 0)]
    assert said == ["random-0 failed: the truth lacks a row"]


def test_what_no_user_can_mend_is_told_with_all_that_helps_to_find_it() -> None:
    assert "ZeroDivisionError: by none" in str(Failed(Cell("random", 0), ZeroDivisionError("by none")))
    assert str(Failed(Cell("random", 0), BrokenProcessPool())).endswith(
        "was killed; where memory ran out, fewer --jobs need less"
    )


def test_at_the_end_it_is_told_which_campaigns_failed_and_the_cure(tmp_path: Path) -> None:
    pool, failed = Coverage(5, 0, 0), Failed(Cell("random", 1), BadConfig("the truth lacks a row"))
    done = [result("random", 0, 0.5)]
    Simulated(tmp_path, pool, done, []).examine()
    found = Simulated(tmp_path, pool, done, [failed])
    with pytest.raises(PreceptorError, match=r"1 of 2 campaigns failed: random-1; .* what is stored is kept"):
        found.examine()
    told = json.loads(json.dumps(found.as_json()))
    assert told["failed"] == [{"acquisition": "random", "seed": 1, "error": "random-1 failed: the truth lacks a row"}]
    assert told["pool"] == {"items": 5, "without_reply": 0, "without_truth": 0}
    assert told["acquisitions"][0]["last"] == 0.5
    assert told["cells"] == done


def known(config: Path) -> Coverage:
    project = Project(config, RichProgress(Console(quiet=True)))
    with closing(project.store):
        return coverage(project, config.parent / "recorded.jsonl", config.parent / "truth.jsonl")


def without(file: Path, *lines: int) -> None:
    """Take these lines out."""
    kept = [line for n, line in enumerate(file.read_text().splitlines(keepends=True)) if n not in lines]
    file.write_text("".join(kept))


def test_pool_items_that_teacher_or_reviewer_do_not_know_are_counted_with_what_becomes_of_them(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    assert known(config) == Coverage(12, 0, 0)
    assert known(config).lines() == []
    without(tmp_path / "recorded.jsonl", 0, 5, 6)
    without(tmp_path / "truth.jsonl", 1)
    assert known(config) == Coverage(12, 3, 1)
    replies, truth = known(config).lines()
    assert replies.startswith("3 of 12 pool items have no recorded reply: asking about one costs its dollars, and")
    assert truth.startswith("1 of 12 pool items have no truth: a campaign that has one of them reviewed ends there")


def test_a_simulation_of_which_nothing_is_known_is_refused_before_it_begins(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    recorded, truth = tmp_path / "recorded.jsonl", tmp_path / "truth.jsonl"
    replies, rows = recorded.read_text(), truth.read_text()
    recorded.write_text(replies.replace('"tiny-teacher"', '"another"'))
    with pytest.raises(BadConfig, match=r"no pool item has a reply by teacher\.model = 'tiny-teacher'; .*: another\. "):
        known(config)
    recorded.write_text(replies)
    truth.write_text(rows.replace('"i', '"j'))
    with pytest.raises(BadConfig, match=r"truth\.jsonl: it has no pool item's key"):
        known(config)


def test_a_simulation_without_a_pool_or_a_holdout_is_refused_with_that_reason(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    project = Project(config, RichProgress(Console(quiet=True)))
    with closing(project.store) as store:
        items.add(store, a_holdout(8))
        with pytest.raises(PoolEmpty, match="preceptor ingest FILE"):
            simulate(project, [Cell("random", 0)], rounds=1, jobs=1)
    other = Project(tiny_project(tmp_path / "other"), RichProgress(Console(quiet=True)))
    with closing(other.store) as store:
        items.add(store, [an_item("i0")])
        with pytest.raises(BadConfig, match="the holdout has no item to test students on"):
            simulate(other, [Cell("random", 0)], rounds=1, jobs=1)


def test_the_help_names_the_acquisition_functions_and_the_form_of_the_truth() -> None:
    assert set(get_args(Acquisition)) == set(ACQUISITIONS)
    said = CliRunner().invoke(app, ["simulate", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in said for name in ACQUISITIONS)
    assert all(f'"{key}"' in said for key in ("key", "answer", "steps", "wrong"))


def a_project(folder: Path) -> Path:
    """A config file without recorded replies."""
    file = folder / "config.toml"
    file.write_text('[task]\nanswer = "number"\n[review]\nboard = "fake"\n', encoding="utf-8")
    return file


def shown(text: RenderableType, *, width: int = 120) -> str:
    """What the command line prints in a window of this width."""
    console = Terminal(highlight=False, soft_wrap=True, width=width, file=io.StringIO())
    console.print(text)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    config = ingested(tiny_project(tmp_path_factory.mktemp("simulate"), rounds=2))
    words = ("simulate", "--acquisition", "random", "--acquisition", "entropy", "--seeds", "2", "--jobs", "2")
    return config, preceptor(*words, config=config)


@pytest.mark.slow
def test_every_cell_is_a_whole_campaign(simulated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    config, done = simulated
    assert done.returncode == 0, done.stderr
    assert "simulated reviewer, recorded teacher" in done.stdout
    [folder] = (config.parent / "runs" / "tiny" / "simulate").iterdir()
    cells = sorted(folder.glob("*.json"))
    assert [file.stem for file in cells] == ["entropy-0", "entropy-1", "random-0", "random-1"]
    for file in cells:
        rounds = json.loads(file.read_text())["rounds"]
        assert sum(each["queried"] for each in rounds) == 12
        assert rounds[1]["usd_so_far"] == pytest.approx(rounds[0]["usd"] + rounds[1]["usd"])
        assert rounds[1]["student"]["n"] > 0
        assert json.loads(file.read_text())["ended"]["text"] == "finished: 2 rounds closed"
    left = {file.name for file in folder.rglob("checkpoints/**/*") if file.is_file()}
    assert left <= {"card.json", "README.md"}, "weights stayed"
    assert (folder / "curves.svg").read_text().startswith("<svg")


def test_of_the_students_of_a_campaign_that_is_done_only_the_cards_stay(tmp_path: Path) -> None:
    for file in (
        "round-1/card.json",
        "round-1/model.safetensors",
        "round-1/tokenizer/vocabulary.json",
        "seed/card.json",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    with closing(Store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        store.migrate()
        kept = checkpoints.keep(
            store, Checkpoint(run="a", folder="round-1", examples=1, card={}, created_at=datetime.now(UTC))
        )
        remove_all_weights(store, "a", tmp_path)
        assert checkpoints.get(store, kept.id or 0).removed_at is not None
        remove_all_weights(store, "a", tmp_path)
    left = [file for file in tmp_path.rglob("*") if file.is_file() and not file.name.startswith("store.db")]
    assert left == [tmp_path / "round-1" / "card.json"]


@pytest.mark.slow
def test_cells_that_are_done_are_kept(simulated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    config, _ = simulated
    [folder] = (config.parent / "runs" / "tiny" / "simulate").iterdir()
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.json")}
    words = ("simulate", "--acquisition", "random", "--acquisition", "entropy", "--seeds", "2", "--json")
    again = preceptor(*words, config=config)
    assert again.returncode == 0
    found = json.loads(again.stdout)
    assert [row["acquisition"] for row in found["acquisitions"]] == ["random", "entropy"]
    assert [(cell["acquisition"], cell["seed"]) for cell in found["cells"]] == [
        ("random", 0), ("entropy", 0), ("random", 1), ("entropy", 1),
    ]  # fmt: skip
    assert found["failed"] == []
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*.json")} == before


@pytest.mark.slow
def test_the_project_itself_is_left_alone(simulated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    config, _ = simulated
    assert json.loads(preceptor("status", "--json", config=config).stdout)["round"] == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_simulation(how: signal.Signals, tmp_path: Path) -> None:
    """At Ctrl-C the terminal tells the workers too."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        (os.killpg if how is signal.SIGINT else os.kill)(parent.pid, how)
        assert ends(worker)


PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from connectors.simulate import leave_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=leave_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600)
        pool.submit(time.sleep, 600).result()
"""


def ends(process: int) -> bool:
    """Whether a process is gone within half a minute."""
    for _ in range(300):
        if not alive(process):
            return True
        time.sleep(0.1)
    return False


def alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return "State:\tZ" not in status


def test_two_simulations_of_one_run_are_refused(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    project = Project(config, RichProgress(Console(quiet=True)))
    with FileLock(project.folder / ".simulate.lock"), pytest.raises(AlreadyWorking, match="wait for it"):
        simulate(project, [Cell("random", 0)], rounds=1, jobs=1)
    assert not (project.folder / "simulate").exists()


@pytest.mark.slow
def test_a_project_without_known_truth_cannot_be_simulated(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    empty = preceptor("simulate", config=config)
    assert empty.returncode == 1
    assert "preceptor ingest" in empty.stderr
    config.write_text(config.read_text().split("[simulated_reviewer]")[0])
    done = preceptor("simulate", config=config)
    assert done.returncode == 1
    assert "simulated_reviewer.truth" in done.stderr
    unknown = preceptor("simulate", "--acquisition", "magic", config=config)
    assert unknown.returncode == 2
    assert "explanation_divergence" in unknown.stderr


@pytest.mark.slow
def test_the_campaigns_beside_one_that_fails_are_kept_and_the_next_call_does_only_that_one(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    project = Project(config, RichProgress(Console(quiet=True)))
    with closing(project.store):
        broken = _folder(project, 1) / "random-0.db"
    broken.write_bytes(b"no database" * 500)
    words = ("simulate", "--acquisition", "random", "--seeds", "2", "--rounds", "1")
    done = preceptor(*words, "--json", config=config)
    assert done.returncode == 1
    assert "random-0 failed: " in done.stderr
    assert "error: 1 of 2 campaigns failed: random-0; " in done.stderr
    assert [each["seed"] for each in json.loads(done.stdout)["cells"]] == [1]
    broken.unlink()
    stored = (broken.parent / "random-1.json").stat().st_mtime_ns
    assert preceptor(*words, config=config).returncode == 0
    assert (broken.parent / "random-1.json").stat().st_mtime_ns == stored


@pytest.mark.slow
def test_a_simulation_alone_that_is_interrupted_ends_its_campaigns_and_says_what_stays(tmp_path: Path) -> None:
    """A terminal interrupts the workers too; here nobody does."""
    config = ingested(tiny_project(tmp_path))
    command = [sys.executable, "-c", INTERRUPTIBLE, "simulate", "--seeds", "9", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        while not list(tmp_path.rglob("*-0.db")):
            time.sleep(0.1)
        workers = children(run.pid)
        run.send_signal(signal.SIGINT)
        assert "stopped; what is stored is kept" in run.stderr.read()
    assert run.returncode == 128 + signal.SIGINT
    assert len(workers) > 0
    assert all(ends(worker) for worker in workers)


@pytest.mark.slow
def test_a_campaign_whose_process_is_killed_ends_no_other(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    words = ["simulate", "--acquisition", "random", "--seeds", "2", "--rounds", "1", "--jobs", "2"]
    command = [sys.executable, "-c", "from connectors.cli import main; main()", *words, "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        while not list(tmp_path.rglob("*-0.db")):
            time.sleep(0.1)
        os.kill(min(each for each in children(run.pid) if "spawn_main" in command_of(each)), signal.SIGKILL)
        said = run.stderr.read()
    assert run.returncode == 1
    assert "its process was killed; where memory ran out, fewer --jobs need less" in said
    assert "error: 1 of 2 campaigns failed" in said
    assert len(list(tmp_path.rglob("random-*.json"))) == 1


def children(process: int) -> list[int]:
    """Those that any of its threads started."""
    return [int(each) for file in Path(f"/proc/{process}/task").glob("*/children") for each in file.read_text().split()]


def command_of(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text()
