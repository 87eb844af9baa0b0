"""The demo's world is what it says, and its numbers come from what the student learned."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.demo.problems import CAMPAIGN, OPERATORS
from connectors.demo.teacher import ERROR_SHARE, HOLDOUT, POOL, write_world

ROOT = Path(__file__).resolve().parents[1]
PRECEPTOR = str(Path(sys.executable).parent / "preceptor")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def test_no_question_stands_in_both_pool_and_holdout(world: Path) -> None:
    pool, holdout = ({row["question"] for row in lines(world / f"{part}.jsonl")} for part in ("pool", "holdout"))
    assert (len(pool), len(holdout)) == (POOL, HOLDOUT)
    assert not pool & holdout


def test_the_pool_has_no_answers(world: Path) -> None:
    assert all("answer" not in row for row in lines(world / "pool.jsonl"))


def test_true_steps_compute_right_and_end_in_the_answer(world: Path) -> None:
    for row in lines(world / "truth.jsonl"):
        for step in row["steps"]:
            (left, sign, right, result), *more = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", step)
            assert not more
            assert OPERATORS[sign](int(left), int(right)) == int(result)
        assert result == row["answer"]


def test_the_simulated_teacher_errs_at_its_rate_and_in_every_domain(world: Path) -> None:
    wrong = {row["key"] for row in lines(world / "truth.jsonl") if row["wrong"]}
    assert abs(len(wrong) / POOL - ERROR_SHARE) < 0.06
    domains = {row["domain"] for row in lines(world / "pool.jsonl") if row["key"] in wrong}
    assert domains == {kind.domain for kind in CAMPAIGN}


def test_some_wrong_rationales_end_in_the_right_answer(world: Path) -> None:
    truth = {row["key"]: row for row in lines(world / "truth.jsonl")}
    recorded = first_replies(world)
    right = [key for key, row in truth.items() if row["wrong"] and recorded[key]["answer"] == row["answer"]]
    assert len(right) >= 10


def test_steps_known_to_be_wrong_stand_in_the_reply(world: Path) -> None:
    recorded = first_replies(world)
    assert all(set(row["wrong"]) <= set(recorded[row["key"]]["steps"]) for row in lines(world / "truth.jsonl"))


def test_the_simulated_teacher_goes_on_from_each_right_step_and_errs_there_too(world: Path) -> None:
    truth = {row["key"]: row for row in lines(world / "truth.jsonl")}
    goes_on = [row for row in lines(world / "recorded.jsonl") if "after" in row]
    assert len(goes_on) == sum(len(row["steps"]) for row in truth.values())
    wrong = [row["answer"] != truth[row["key"]]["answer"] for row in goes_on if row["steps"]]
    assert abs(sum(wrong) / len(wrong) - ERROR_SHARE) < 0.06
    assert all(row["answer"] == truth[row["key"]]["answer"] for row in goes_on if not row["steps"])


def first_replies(world: Path) -> dict[str, dict[str, Any]]:
    """The teacher's replies to the items alone, by key."""
    return {row["key"]: row for row in lines(world / "recorded.jsonl") if "after" not in row}


def campaign(folder: Path, *, rounds: int, shuffled: bool = False, more: str = "", **changes: str) -> Path:
    """The demo's campaign on the fake board in a folder of its own; its config."""
    write_world(folder / "runs/demo/world", shuffled=shuffled)
    text = (ROOT / "config.toml").read_text(encoding="utf-8").replace("connectors/demo", f"{ROOT}/connectors/demo")
    text = text.replace('board = "label_studio"', 'board = "fake"')
    for old, new in changes.items():
        text, count = re.subn(rf"^{old} = .*$", f"{old} = {new}", text, flags=re.MULTILINE)
        assert count == 1, old
    config = folder / "config.toml"
    config.write_text(text + more, encoding="utf-8")
    for part in ("holdout", "pool"):
        run("ingest", str(folder / f"runs/demo/world/{part}.jsonl"), "--split", part, config=config)
    run("run", "--rounds", str(rounds), config=config)
    return config


UNREVIEWED = {
    "more": "\n[acceptance]\nsilver_risk = 1.0\n",
    "audit_share": "0.0",
    "risk_threshold": "1.0",
}
"""Everything that parses is accepted as it came."""


def run(*words: str, config: Path) -> str:
    done = subprocess.run(
        [PRECEPTOR, *words, "--config", str(config)], check=False, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def slipped(config: Path) -> int:
    """Wrong rationales of the teacher among what was accepted."""
    run("export", str(config.parent / "export"), config=config)
    truth = {row["key"]: set(row["wrong"]) for row in lines(config.parent / "runs/demo/world/truth.jsonl")}
    return sum(bool(truth[row["key"]] & set(row["steps"])) for row in lines(config.parent / "export/examples.jsonl"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fewer_wrong_rationales_slip_through_with_review_than_without(tmp_path: Path) -> None:
    reviewed = campaign(tmp_path / "with", rounds=1, epochs="0.1")
    unreviewed = campaign(tmp_path / "without", rounds=1, epochs="0.1", **UNREVIEWED)
    assert slipped(reviewed) < slipped(unreviewed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_student_of_shuffled_replies_does_not_learn(tmp_path: Path) -> None:
    """Without review, for reviewers would put right rationales in the place of those that stand at the wrong item."""
    config = campaign(tmp_path, rounds=4, shuffled=True, **UNREVIEWED)
    status = json.loads(run("status", "--json", config=config))
    first, last = (status["rounds"][place]["student"] for place in (0, -1))
    assert last["accuracy"] - first["accuracy"] <= (last["high"] - last["low"]) / 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demos_student_learns(tmp_path: Path) -> None:
    config = campaign(tmp_path, rounds=4)
    status = json.loads(run("status", "--json", config=config))
    first, last = (status["rounds"][place]["student"] for place in (0, -1))
    assert last["accuracy"] - first["accuracy"] > (last["high"] - last["low"]) / 2
