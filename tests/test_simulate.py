"""Simulated campaigns side by side: every cell is a whole campaign, kept when done, and compared over seeds."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from connectors.simulate import summary
from tests.test_campaign import ingested, preceptor
from tests.tiny import tiny_project

pytestmark = pytest.mark.slow


def result(acquisition: str, seed: int, *accuracies: float) -> dict[str, Any]:
    rounds = [{"usd_so_far": 0.1 * n, "student": {"accuracy": each}} for n, each in enumerate(accuracies, start=1)]
    return {"acquisition": acquisition, "seed": seed, "rounds": rounds}


def test_gains_are_paired_by_seed_and_have_an_interval() -> None:
    results = [result("random", seed, 0.1 * seed, 0.1 * seed + 0.1) for seed in range(4)]
    results += [result("margin", seed, 0.1 * seed + 0.05, 0.1 * seed + 0.15) for seed in range(3)]
    random, margin = summary(results)
    assert (random["gain"], random["interval"]) == (None, None)
    assert margin["gain"] == pytest.approx(0.05)
    assert margin["interval"] == (pytest.approx(0.05), pytest.approx(0.05))
    assert margin["last"] == pytest.approx(0.25)
    assert margin["usd"] == pytest.approx(0.2)


def test_one_seed_gives_no_interval_and_a_round_without_a_student_no_point() -> None:
    without = {"usd_so_far": 0.1, "student": None}
    results = [result("random", 0, 0.2), result("margin", 0, 0.4), {"acquisition": "x", "seed": 0, "rounds": [without]}]
    assert [(row["acquisition"], row["interval"]) for row in summary(results)] == [("random", None), ("margin", None)]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    config = ingested(tiny_project(tmp_path_factory.mktemp("simulate"), rounds=2))
    words = ("simulate", "--acquisition", "random", "--acquisition", "entropy", "--seeds", "2", "--jobs", "2")
    return config, preceptor(*words, config=config)


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
    assert (folder / "curves.svg").read_text().startswith("<svg")


def test_cells_that_are_done_are_kept(simulated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    config, _ = simulated
    [folder] = (config.parent / "runs" / "tiny" / "simulate").iterdir()
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.json")}
    again = preceptor("simulate", "--acquisition", "random", "--acquisition", "entropy", "--seeds", "2", config=config)
    assert again.returncode == 0
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*.json")} == before
    assert "entropy" in again.stdout


def test_the_project_itself_is_left_alone(simulated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    config, _ = simulated
    assert json.loads(preceptor("status", "--json", config=config).stdout)["round"] == 0


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
