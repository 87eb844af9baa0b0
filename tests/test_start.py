"""What a command loads, and what it says where an extra is not installed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

HEAVY = [
    "alembic", "cleanlab", "connectors.wiring", "crowdkit", "datasets", "fastapi", "httpx", "loop.records",
    "matplotlib", "numpy", "openai", "pandas", "peft", "pint", "pyarrow", "ray", "scipy", "sklearn", "sqlalchemy",
    "sqlmodel", "statsmodels", "structlog", "torch", "transformers",
]  # fmt: skip
"""What takes long to load; at least a tenth of a second each, or what brings such along."""
LEARNING = ["cleanlab", "datasets", "matplotlib", "pandas", "peft", "pint", "sklearn", "torch", "transformers"]
EXTRAS = ["datasets", "label_studio_sdk", "openvino", "peft", "psycopg", "ray", "torch", "transformers"]

pytestmark = pytest.mark.sqlite("PostgreSQL's driver is among what is kept away")
COMMANDS = """
import json, sys, traceback
missing, commands = map(json.loads, sys.argv[1:])


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NotInstalled())
from connectors.cli import main

for command in commands:
    sys.argv = ["preceptor", *command.split()]
    try:
        main()
    except SystemExit as ended:
        print(f"{command} ended with {ended.code}", flush=True)
print(json.dumps(sorted(sys.modules)))
"""


def after(folder: Path, *commands: str, missing: Sequence[str] = ()) -> tuple[str, set[str]]:
    """What commands say in one new process, where some packages are missing, and all modules that they loaded."""
    words = [sys.executable, "-c", COMMANDS, json.dumps(missing), json.dumps(commands)]
    done = subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    said, _, names = done.stdout.rstrip().rpartition("\n")
    return said + done.stderr, set(json.loads(names))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project with items, taken in without any extra."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "config.toml").write_text('[review]\nboard = "fake"\n', encoding="utf-8")
    lines = [json.dumps({"key": f"q{n}", "question": f"What is {n} + 1 ?", "answer": n + 1}) for n in range(20)]
    (folder / "items.jsonl").write_text("\n".join(lines), encoding="utf-8")
    said, _ = after(folder, "ingest items.jsonl", missing=EXTRAS)
    assert "ingest items.jsonl ended with 0" in said
    return folder


def test_help_loads_nothing_that_takes_long(tmp_path: Path) -> None:
    said, names = after(tmp_path, "--help", "run --help", "review --help", "export --help")
    assert said.count("Usage:") == 4
    assert names & set(HEAVY) == set()


def test_a_look_at_a_run_loads_nothing_that_learns(project: Path) -> None:
    said, names = after(project, "status", "history q1", "versions", "review status", "certificate")
    assert said.count("ended with 0") == 4
    assert names & set(LEARNING) == set()


def test_who_only_looks_and_exports_needs_no_extra(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    looks = ["status", "prompt q3", "report --markdown report.md", "export out"]
    said, _ = after(project, *looks, missing=EXTRAS)
    assert [f"{look} ended with 0" in said for look in looks] == [True, True, True, False]
    assert "run main has no round yet, so there is nothing to export" in said


def test_what_learns_or_speaks_to_others_names_the_extra_that_is_missing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "none")
    (tmp_path / "dataset_info.json").write_text("{}", encoding="utf-8")
    for name, text in {
        "studio": '[run]\ndatabase = "sqlite:///studio.db"\n',
        "postgres": '[run]\ndatabase = "postgresql://nobody@localhost/none"\n',
    }.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    commands = {
        "run": 'a student needs the package transformers: pip install "preceptor[student]"',
        "doctor": 'FAIL student: a student needs the package transformers: pip install "preceptor[student]"',
        f"ingest {tmp_path}": 'Hugging Face dataset folder needs the package datasets: pip install "preceptor[hf]"',
        f"review practice --config {tmp_path}/studio.toml": (
            'Label Studio needs the package label_studio_sdk: pip install "preceptor[label-studio]"'
        ),
        f"status --config {tmp_path}/postgres.toml": (
            'run.database needs the package psycopg: pip install "preceptor[postgresql]"'
        ),
    }
    said, _ = after(project, *commands, missing=EXTRAS)
    assert [text for text in commands.values() if text not in said] == []
    assert said.count("ended with 1") == len(commands)


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from connectors.cli import main
main()
"""


@pytest.mark.parametrize("words", ["teacher serve recorded.jsonl --port 0", "users add ann --role viewer"])
def test_a_command_that_is_interrupted_says_what_becomes_of_the_work(words: str, tmp_path: Path) -> None:
    """One that serves, and one that waits for its input once it has made a database."""
    line = {"key": "q", "question": "How many?", "text": "Two.\nAnswer: 2"}
    (tmp_path / "recorded.jsonl").write_text(json.dumps(line), encoding="utf-8")
    (tmp_path / "config.toml").write_text('[review]\nboard = "fake"\n', encoding="utf-8")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", INTERRUPTIBLE, *words.split()]
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        if words.startswith("teacher"):
            assert "Ctrl-C ends it" in run.stdout.readline()
        while words.startswith("users") and not (tmp_path / "preceptor.db").exists():
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
    assert said == "stopped; what is stored is kept: called again, `run`, `predict` and `simulate` go on from there\n"
    assert run.returncode == 128 + signal.SIGINT
