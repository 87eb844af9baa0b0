"""A student answers questions and whole files: streamed, resumed to the same bytes, bad rows named with the cure."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from connectors import predicting
from connectors.cli import app
from connectors.files import Raw
from connectors.predicting import bad_rows, predict
from connectors.progress import RichBar, RichProgress
from connectors.students import answer_question, asked, item_of, trained
from connectors.wiring import Project
from loop.errors import BadRow, ItemTooLong, PreceptorError
from loop.records import Part, Split
from loop.stages.parts import PIECE
from loop.store import items
from tests.test_encoder import examples as told
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.tiny import tiny_model
from tests.trained import a_trained_project

SUMS = "lora_rank = 0\nepochs = 80\nbatch_size = 4\nlearning_rate = 0.01"
LABELS = 'answer = "label"\n[task.labels]\nwarm = "It is warm."\ncold = "It is cold."'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("sums")
    tiny_model(folder / "model")
    return a_trained_project(folder, student=SUMS)


@pytest.fixture(scope="module")
def classifying(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:  # noqa: F811
    folder = tmp_path_factory.mktemp("labels")
    (folder / "model").symlink_to(encoder)
    settings = 'kind = "encoder"\nepochs = 20\nbatch_size = 4\nlearning_rate = 3e-3'
    return a_trained_project(folder, task=LABELS, student=settings, examples=told())


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("choices")
    tiny_model(folder / "model")
    return a_trained_project(folder, task='answer = "choice"', student="lora_rank = 0\nepochs = 1")


def written(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def some_sums(count: int) -> list[dict[str, object]]:
    return [{"key": f"p{n}", "question": f"What is {n % 8} + 20 ?", "answer": n % 8 + 20} for n in range(count)]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_question_is_answered_with_its_steps(project: Project) -> None:
    said = answer_question(project, asked("What is 3 + 20 ?", project.config.task), trained(project))
    assert said.splitlines()[:2] == ["1. 3 + 20 = 23 .", "Answer: 23"]
    assert re.search(r"\(\d of 4 sampled explanations agree; confidence 0\.\d\d, not calibrated\)$", said)


def test_the_command_answers_with_context_and_choices(choosing: Project) -> None:
    words = ["answer", "What is 3 ?", "--context", "3 is 3 .", "--choice", "3", "--choice", "4"]
    done = CliRunner().invoke(app, [*words, "--config", str(choosing.path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("question", "choices", "said"),
    [
        ("  ", ["3", "4"], "the question: `question` is missing or empty"),
        ("What is 3 ?", [], "the question: no `choices`, which task.answer = choice needs"),
        ("What is 3 ?", ["3"], "the question: `choices` needs 2 to 26 texts"),
        ("What is 3 ?", ["3", "3"], "the question: `choices` holds the same text twice"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    question: str, choices: list[str], said: str, choosing: Project
) -> None:
    with pytest.raises(BadRow, match=said):
        asked(question, choosing.config.task, "", choices)


def test_an_item_longer_than_the_student_reads_is_refused_and_not_cut(project: Project) -> None:
    item = asked("What is 3 + 20 ?", project.config.task, context="3 + 3 . " * 20)
    with pytest.raises(ItemTooLong, match=r"takes \d+ tokens, but the student reads 40; shorten its context"):
        answer_question(project, item, trained(project))


def test_every_row_of_a_file_gets_a_line_in_its_order(project: Project, tmp_path: Path) -> None:
    file = written(tmp_path / "questions.jsonl", some_sums(PIECE + 6))
    found = predict(project, trained(project), file, None)
    assert [line["key"] for line in lines(found.file)] == [f"p{n}" for n in range(PIECE + 6)]
    assert lines(found.file)[3] == {"key": "p3", "answer": "23", "steps": ["3 + 20 = 23 ."], "right": True}
    assert found.file == tmp_path / "questions.jsonl.answers.jsonl"
    assert "accuracy where the file gives the answer: 1.000 (0.948 to 1.000, n=70)" in found.summary()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["questions.jsonl", "questions.jsonl.answers.jsonl"]
    with pytest.raises(PreceptorError, match="exists already; remove it, or name another file with --out"):
        predict(project, trained(project), file, None)


def test_rows_of_the_pool_are_told_beside_the_accuracy(project: Project, tmp_path: Path) -> None:
    rows = [{**row, "question": f"Is {row['question']} right ?"} for row in some_sums(6)]
    pooled, held_out = (item_of(Raw("", 1, row), project.config.task) for row in rows[:2])
    held_out.split, held_out.part = Split.HOLDOUT, Part.DEV
    pooled.key, held_out.key = "mine", "its"
    items.add(project.store, [pooled, held_out])
    found = predict(project, trained(project), written(tmp_path / "questions.jsonl", rows), None)
    assert [line.get("in_run") for line in lines(found.file)] == [True, *[None] * 5]
    assert "1 of these 6 rows stand in the run's pool or seed" in found.summary()


def test_a_key_that_is_no_text_is_named_as_a_bad_row(project: Project, tmp_path: Path) -> None:
    rows = [*some_sums(1), {"key": float("nan"), "question": "What is 1 + 20 ?"}]
    found = predict(project, trained(project), written(tmp_path / "questions.jsonl", rows), None)
    assert lines(found.file)[1]["key"] is None
    assert "error" in lines(found.file)[1]


def test_an_encoder_says_how_probable_its_label_is(classifying: Project, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("key,question\na,the sun burns today\nb,the snow falls today\n")
    found = predict(classifying, trained(classifying), tmp_path / "q.csv", tmp_path / "out.jsonl")
    assert [line["answer"] for line in lines(found.file)] == ["warm", "cold"]
    assert all(0.5 < float(str(line["probability"])) <= 1 for line in lines(found.file))


def test_bad_rows_are_named_and_the_good_ones_beside_them_answered(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    rows = [
        '{"key": "a", "question": "What is 3 + 20 ?"}',
        '{"key": "b", "question": ',
        '{"key": "c", "question": " "}',
        json.dumps({"key": "d", "question": "What is 1 ?", "context": "3 + 3 . " * 20}),
        '{"key": "e", "question": "What is 4 + 20 ?", "answer": "blue"}',
        '{"key": "f", "question": "What is 5 + 20 ?"}',
    ]
    file.write_text("\n".join(rows) + "\n")
    done = CliRunner().invoke(app, ["predict", str(file), "--config", str(project.path)], catch_exceptions=False)
    assert done.exit_code == 1
    out = Path(f"{file}.answers.jsonl")
    assert [line.get("answer") for line in lines(out)] == ["23", None, None, None, None, "25"]
    expected = [
        f"{file}:2: not valid JSON",
        f"{file}:3: `question` is missing or empty",
        f"{file}:4: item 'd' takes",
        f"{file}:5: `answer` 'blue' is not allowed; expected a number",
    ]
    assert all(said.startswith(start) for said, start in zip(bad_rows(out), expected, strict=True))
    assert all(start in done.stderr for start in expected)
    assert "answered 2 of 6 rows" in done.stdout


def test_a_label_never_seen_is_refused_with_the_known_ones(classifying: Project, tmp_path: Path) -> None:
    file = written(tmp_path / "q.jsonl", [{"question": "the sun burns", "answer": "wet"}])
    found = predict(classifying, trained(classifying), file, None)
    assert list(bad_rows(found.file)) == [f"{file}:1: `answer` 'wet' is not allowed; expected one of warm, cold"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.jsonl", None, "no such file"),
        ("empty.jsonl", "", "no rows in it"),
        ("q.docx", "x", "unknown kind of file"),
        ("q.csv", "text\nx\n", "no column `question`"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_nothing(
    name: str, text: str | None, said: str, project: Project, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(BadRow, match=said):
        predict(project, trained(project), tmp_path / name, None)
    assert [each.name for each in tmp_path.iterdir()] == ([] if text is None else [name])


def test_a_folder_that_is_not_there_is_named_with_the_cure_before_anything_is_done(
    project: Project, tmp_path: Path
) -> None:
    file = written(tmp_path / "q.jsonl", some_sums(2))
    with pytest.raises(PreceptorError, match=r"there is no folder .*nodir; make it, or name another file with --out"):
        predict(project, trained(project), file, tmp_path / "nodir" / "x.jsonl")
    assert [each.name for each in tmp_path.iterdir()] == ["q.jsonl"]


def test_a_name_that_promises_a_table_is_refused(project: Project, tmp_path: Path) -> None:
    file = written(tmp_path / "q.jsonl", some_sums(2))
    with pytest.raises(PreceptorError, match="written as JSON lines; name a file that ends with"):
        predict(project, trained(project), file, tmp_path / "out.CSV")


KILLED = """\
import os, signal, sys
from pathlib import Path
from connectors import predicting
from connectors.students import trained
from connectors.wiring import Project
from tests.trained import QUIET
kept, pieces = os.fsync, []
def fsync(number):
    kept(number)
    pieces.append(number)
    if len(pieces) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
project = Project(Path(sys.argv[1]), QUIET)
predicting.predict(project, trained(project), Path(sys.argv[2]), Path(sys.argv[3]))
"""


@dataclass(frozen=True)
class Watched(RichProgress):
    """Progress that tells how far the bar moved at once."""

    moves: list[int]

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[RichBar]:
        moves = self.moves

        class Bar(RichBar):
            def advance(self, steps: int = 1) -> None:
                moves.append(steps)

        with super().bar(title, total) as bar:
            yield Bar(bar.progress, bar.task)


def test_a_killed_run_goes_on_to_the_same_bytes(project: Project, tmp_path: Path) -> None:
    file = written(tmp_path / "q.jsonl", some_sums(3 * PIECE + 5))
    whole = predict(project, trained(project), file, tmp_path / "whole.jsonl").file.read_bytes()
    command = [sys.executable, "-c", KILLED, str(project.path), str(file), str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=False, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    [partial] = tmp_path.glob(".out.jsonl.*.partial")
    assert partial.read_bytes() == b"".join(whole.splitlines(keepends=True)[: 2 * PIECE])
    with partial.open("ab") as cut_off:
        cut_off.write(b'{"key": "p128", "ans')
    moves: list[int] = []
    again = Project(project.path, Watched(Console(quiet=True), moves))
    predict(again, trained(again), file, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert moves == [2 * PIECE, PIECE, 5]
    assert not list(tmp_path.glob(".*"))


def test_another_input_does_not_go_on_with_what_was_begun(project: Project, tmp_path: Path) -> None:
    file = written(tmp_path / "q.jsonl", some_sums(2))
    begun = tmp_path / f".out.jsonl.{predicting._fingerprint(file, trained(project), project, sampled=False)}.partial"
    begun.write_bytes(b'{"key": "old"}\n' * PIECE)
    written(file, some_sums(3))
    predict(project, trained(project), file, tmp_path / "out.jsonl")
    assert [line["key"] for line in lines(tmp_path / "out.jsonl")] == ["p0", "p1", "p2"]
    assert not begun.exists()


def test_a_second_process_is_told_to_wait(project: Project, tmp_path: Path) -> None:
    file = written(tmp_path / "q.jsonl", some_sums(2))
    busy, told = predicting._alone(project.folder, tmp_path / "out.jsonl"), "another process is writing it"
    with busy, pytest.raises(PreceptorError, match=told):
        predict(project, trained(project), file, tmp_path / "out.jsonl")


def test_memory_does_not_grow_with_the_file(classifying: Project, tmp_path: Path) -> None:
    peaks, own = [], Path("/proc/self")
    for count in (2 * PIECE, 1500):
        file = tmp_path / f"{count}.jsonl"
        with file.open("w") as sink:
            sink.writelines(json.dumps({"question": "the sun", "domain": "d" * 40_000}) + "\n" for _ in range(count))
        own.joinpath("clear_refs").write_text("5")  # the peak starts at what is held now
        predict(classifying, trained(classifying), file, tmp_path / f"{count}.out")
        peaks.append(int(own.joinpath("status").read_text().partition("VmHWM:")[2].split()[0]) / 1024)
    assert file.stat().st_size > 57 * 2**20
    assert peaks[1] - peaks[0] < 20
