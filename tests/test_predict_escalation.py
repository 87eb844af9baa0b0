"""Rows of a file of which the student is not sure go to the teacher: the least sure first, paid once, within budget."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from connectors.cli import app
from connectors.predicting import Predicted, predict
from connectors.students import answer_question, asked, trained
from connectors.wiring import Project
from loop.errors import PreceptorError
from loop.ledger import MICRO
from loop.records import Charge, Currency
from loop.store.money import Purse
from tests.test_encoder import examples as told
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.tiny import tiny_model
from tests.trained import QUIET, a_trained_project

SUMS = "lora_rank = 0\nepochs = 80\nbatch_size = 4\nlearning_rate = 0.01\n[query]\ntemperature = 2.0\nsamples = 8"
LABELS = 'answer = "label"\n[task.labels]\nwarm = "It is warm."\ncold = "It is cold."'
PRICED = """\
input_price = 100.0
output_price = 400.0
max_completion_tokens = 64
"""
KNOWN, STRANGE, SILENT = "What is 3 + 20 ?", "20 20", "What is 4 + 4 ?"


def recorded(folder: Path, answers: dict[str, str]) -> None:
    rows = [
        {"key": f"r{place}", "question": question, "model": "tiny-teacher", "steps": ["It is so."], "answer": answer}
        for place, (question, answer) in enumerate(answers.items())
    ]
    (folder / "recorded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def priced(project: Project) -> Project:
    project.path.write_text(project.path.read_text(encoding="utf-8") + PRICED, encoding="utf-8")
    return Project(project.path, QUIET)


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("sums")
    tiny_model(folder / "model")
    recorded(folder, {KNOWN: "23", STRANGE: "40", "What is 5 + 20 ?": "25", SILENT: "eight"})
    return priced(a_trained_project(folder, student=SUMS))


@pytest.fixture(scope="module")
def classifying(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:  # noqa: F811
    folder = tmp_path_factory.mktemp("labels")
    (folder / "model").symlink_to(encoder)
    recorded(folder, {"warm cold": "cold"})
    settings = 'kind = "encoder"\nepochs = 20\nbatch_size = 4\nlearning_rate = 3e-3'
    return priced(a_trained_project(folder, task=LABELS, student=settings, examples=told()))


def asked_of(project: Project, questions: Sequence[str], folder: Path, threshold: float, **more: Any) -> Predicted:
    file = folder / "q.jsonl"
    file.write_text("".join(json.dumps({"question": each, **more}) + "\n" for each in questions), encoding="utf-8")
    return predict(project, trained(project), file, folder / "out.jsonl", threshold)


def sure_of(project: Project, question: str, folder: Path) -> float:
    """How probable the student holds its answer, as a file without any threshold for it says."""
    (folder / "alone").mkdir()
    [line] = lines(asked_of(project, [question], folder / "alone", 0.0).file)
    shutil.rmtree(folder / "alone")
    return float(line["probability"])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def spent(project: Project) -> int:
    return Purse(project.store, project.config.run.name).balances()[Currency.USD].spent


def charges(project: Project) -> list[Charge]:
    with project.store.reading() as session:
        found = session.exec(select(Charge).order_by("id"))
        return [each for each in found if each.purpose.startswith("predict/")]


def test_the_teacher_answers_what_the_student_is_not_sure_of(sums: Project, tmp_path: Path) -> None:
    before, known = spent(sums), sure_of(sums, KNOWN, tmp_path)
    assert sure_of(sums, STRANGE, tmp_path) < known
    found = asked_of(sums, [KNOWN, STRANGE, STRANGE], tmp_path, known)
    sure, *unsure = lines(found.file)
    own = {"answer": "23", "steps": ["3 + 20 = 23 ."], "probability": known, "by": "student"}
    assert {name: value for name, value in sure.items() if name != "key"} == own
    for line in unsure:
        assert (line["by"], line["answer"], line["steps"]) == ("tiny-teacher", "40", ["It is so."])
        assert line["student"]["probability"] < known
        assert line["usd"] > 0
    assert round(sum(line["usd"] for line in unsure) * MICRO) == spent(sums) - before
    assert f"the teacher was asked about 2 rows for ${found.usd:.4f}; 2 have its answer" in found.summary()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.jsonl", "q.jsonl"]


def test_how_sure_it_is_is_measured_as_when_its_temperature_was_fitted(sums: Project, tmp_path: Path) -> None:
    expected, text = sure_of(sums, STRANGE, tmp_path), sums.path.read_text(encoding="utf-8")
    assert 0 < expected < 1
    sums.path.write_text(text.replace("temperature = 2.0\nsamples = 8", "samples = 2"), encoding="utf-8")
    try:
        today = Project(sums.path, QUIET)
        assert today.config.query.samples == 2
        assert sure_of(today, STRANGE, tmp_path) == expected
        said = answer_question(today, asked(STRANGE, today.config.task), trained(today))
    finally:
        sums.path.write_text(text, encoding="utf-8")
    assert "of 8 sampled explanations agree" in said


def test_nothing_is_asked_where_the_student_is_sure_enough(sums: Project, tmp_path: Path) -> None:
    before = len(charges(sums))
    found = asked_of(sums, [KNOWN, STRANGE], tmp_path, 0.0)
    assert [line["by"] for line in lines(found.file)] == ["student", "student"]
    assert len(charges(sums)) == before
    assert "the teacher" not in found.summary()


def test_a_reply_that_cannot_be_used_leaves_the_student_s_answer_and_says_why(sums: Project, tmp_path: Path) -> None:
    found = asked_of(sums, [SILENT, "What is 9 + 9 ?"], tmp_path, 1.0)
    odd, nothing = lines(found.file)
    assert odd["by"] == nothing["by"] == "student"
    assert odd["problem"] == "the answer 'eight' is not an allowed one"
    assert nothing["problem"]
    assert "asked about 2 rows" in found.summary()
    assert "; 0 have its answer" in found.summary()


def test_the_accuracy_of_both_is_told_where_the_file_gives_the_answer(sums: Project, tmp_path: Path) -> None:
    found = asked_of(sums, [STRANGE], tmp_path, 1.0, answer=40)
    assert "accuracy where the file gives the answer: 1.000" in found.summary()
    assert "; the student alone: 0.000" in found.summary()
    [line] = lines(found.file)
    assert line["right"] is True
    assert line["student"]["right"] is False


def test_a_classifier_goes_by_how_probable_its_label_is(classifying: Project, tmp_path: Path) -> None:
    doubtful, sure = (sure_of(classifying, each, tmp_path) for each in ("warm cold", "the sun burns today"))
    assert doubtful < sure
    found = asked_of(classifying, ["warm cold", "the sun burns today"], tmp_path, sure)
    assert [line["by"] for line in lines(found.file)] == ["tiny-teacher", "student"]
    assert [line["answer"] for line in lines(found.file)] == ["cold", "warm"]


def test_a_budget_that_does_not_reach_is_told_and_what_was_paid_for_is_kept(sums: Project, tmp_path: Path) -> None:
    text = sums.path.read_text(encoding="utf-8")
    tight = sums.home / "tight.toml"
    one = 100 * 1000 + 400 * 64  # micro-dollars: a prompt of a thousand tokens and the longest reply
    tight.write_text(f"{text}[budget]\nusd = {(spent(sums) + one) / MICRO}\n", encoding="utf-8")
    project, before = Project(tight, QUIET), len(charges(sums))
    with pytest.raises(PreceptorError, match=r"the budget is spent: \d rows below 1 were not asked about") as refused:
        asked_of(project, [KNOWN, "What is 5 + 20 ?", STRANGE], tmp_path, 1.0)
    paid = [each for each in charges(sums)[before:] if each.settled]
    assert next(each.purpose.split("/")[2] for each in paid) == "2"  # the least sure one first
    assert not (tmp_path / "out.jsonl").exists()
    lower = float(re.findall(r"--threshold (\d+\.\d+)", str(refused.value))[0])
    found = asked_of(project, [KNOWN, "What is 5 + 20 ?", STRANGE], tmp_path, lower)
    assert lines(found.file)[2]["by"] == "tiny-teacher"
    assert [each for each in charges(sums)[before:] if each.settled] == paid
    assert round(found.usd * MICRO) == sum(each.settled for each in paid)


def test_no_reply_that_was_paid_for_is_thrown_away_by_a_lower_threshold(sums: Project, tmp_path: Path) -> None:
    """Rows of one text are alike in confidence, so that a threshold cannot part what was asked from what was not."""
    text = sums.path.read_text(encoding="utf-8")
    tight, before = sums.home / "tighter.toml", spent(sums)
    one = 100 * 1000 + 400 * 64
    tight.write_text(
        text.replace("max_completion_tokens = 64\n", "max_completion_tokens = 64\nconcurrency = 1\n")
        + f"[budget]\nusd = {(before + 1.3 * one) / MICRO}\n",
        encoding="utf-8",
    )
    project, questions = Project(tight, QUIET), [STRANGE] * 12
    with pytest.raises(PreceptorError, match="the budget is spent") as refused:
        asked_of(project, questions, tmp_path, 1.0)
    paid = spent(sums) - before
    assert paid > 0
    found = asked_of(project, questions, tmp_path, float(re.findall(r"--threshold ([\d.]+\d)", str(refused.value))[0]))
    assert sum(line["by"] == "tiny-teacher" for line in lines(found.file)) > 1
    assert (round(found.usd * MICRO), spent(sums) - before) == (paid, paid)


def test_what_the_same_rows_cost_before_is_not_counted_again(sums: Project, tmp_path: Path) -> None:
    first = asked_of(sums, [STRANGE], tmp_path, 1.0)
    first.file.unlink()
    before = spent(sums)
    assert round(asked_of(sums, [STRANGE], tmp_path, 1.0).usd * MICRO) == spent(sums) - before > 0


def test_half_a_character_in_a_key_stops_no_other_row(sums: Project, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"key": "s\\ud83d", "question": "20 20"}\n{"key": "b", "question": "20 20"}\n')
    found = predict(sums, trained(sums), tmp_path / "q.jsonl", tmp_path / "out.jsonl", 1.0)
    odd, sound = lines(found.file)
    assert odd["key"].startswith("s")
    assert (sound["key"], sound["by"]) == ("b", "tiny-teacher")


KILLED = """\
import os, signal, sys
from pathlib import Path
from connectors import predicting
from connectors.students import trained
from connectors.wiring import Project
from tests.trained import QUIET
kept, files = os.fsync, []
def fsync(number):
    kept(number)
    files.append(number)
    if len(files) == 3:  # the student's piece, and the second reply
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
project = Project(Path(sys.argv[1]), QUIET)
predicting.predict(project, trained(project), Path(sys.argv[2]), Path(sys.argv[3]), 1.0)
"""


def test_a_killed_run_pays_for_no_reply_twice(sums: Project, tmp_path: Path) -> None:
    questions = [KNOWN, STRANGE, "What is 5 + 20 ?"]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"question": each}) + "\n" for each in questions))
    before = len(charges(sums))
    command = [sys.executable, "-c", KILLED, str(sums.path), str(tmp_path / "q.jsonl"), str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=False, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    [kept] = tmp_path.glob(".out.jsonl.*.asked")
    kept_rows, last = [line["row"] for line in lines(kept)[1:]], charges(sums)[-1].id or 0
    assert len(kept_rows) == 2
    with kept.open("ab") as cut_off:
        cut_off.write(b'{"row": 2, "pro')
    found = asked_of(sums, questions, tmp_path, 1.0)
    assert [line["by"] for line in lines(found.file)] == ["tiny-teacher"] * 3
    made = charges(sums)[before:]
    written = {str(each) for each in kept_rows}
    again = [each.purpose.split("/")[2] for each in made if (each.id or 0) > last]
    assert not written & set(again)  # none that was written down is asked for again
    assert any(each.assumed for each in made)  # the hold of the reply that was not settled


def test_the_command_names_who_answered(sums: Project, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": STRANGE}) + "\n")
    words = ["predict", str(tmp_path / "q.jsonl"), "--threshold", "0.9", "--config", str(sums.path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert "1 rows go to tiny-teacher, for at most $" in done.output
    assert "the teacher was asked about 1 rows for $" in done.stdout
