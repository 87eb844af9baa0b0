"""Every command, setting and code block in the documentation is tried, so that it cannot say what is not so."""

import importlib.util
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from markdown_it import MarkdownIt
from rich.markup import render
from typer.core import TyperGroup
from typer.testing import CliRunner

from connectors.cli import app
from connectors.files import Raw
from connectors.reference import commands_page, settings_page
from connectors.rows import checked
from loop.config import Config, load
from tests.test_student_server import serving
from tests.tiny import tiny_model
from tests.trained import a_trained_project

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BIN = Path(sys.executable).parent
WORDS = re.compile(r"preceptor(?: [a-z]+)+\b")
SETTING = re.compile(r"\[?([a-z_]+)\.([a-z_]+)\b")

NOT_RUN = {
    "docker": "there is no container engine where the suite runs",
    "pip": "it installs from the network",
    "python3": "makes an environment to install into",
    ".": "enters an environment that is not made",
    "make": "builds and tests everything; that the target is there is looked up",
    "cd": "only goes to another folder",
    "cp": "copies a file that is looked up in tests/test_deployment.py",
    "mkdir": "makes a folder for a file that the reader writes",
    "$EDITOR": "is the reader's editor",
    "export": "sets a variable for the lines behind it",
    "openssl": "makes a secret",
    "python": "is run with the tutorial, or converts to a form that we do not test (llama.cpp)",
}
"""First words of command lines that are not tried, and why. One that stands nowhere any more fails a test."""
LANGUAGES = frozenset({"bash", "toml", "python", "jsonl", "text", "math"})
SERVED = "127.0.0.1:8096"
"""Where `preceptor student serve` listens."""
TEXTS = [page for page in PAGES if page.parent.name != "decisions"]
"""Decisions say what was so when they were made; settings and commands in them may be gone."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @cached_property
    def title(self) -> str:
        found = re.search(r'title="([^"]+)"', self.info)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def tokens(page: Path) -> Iterator[Any]:
    """All tokens of a page, those within paragraphs too."""
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


BLOCKS = [
    Block(page, token.map[0] + 1, token.info, token.content)
    for page in PAGES
    for token in tokens(page)
    if token.type == "fence"
]


def of(language: str) -> Any:
    """A test for each block of a language; the one that asks a served student has a test of its own."""
    found = [
        block for block in BLOCKS if block.language == language and (language != "python" or SERVED not in block.text)
    ]
    return pytest.mark.parametrize("block", found, ids=str)


def code_spans(page: Path) -> list[str]:
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def command_lines(text: str) -> Iterator[list[str]]:
    """The simple commands of a piece of shell, without comments and assignments before them."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();&|")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();&|"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


def refusal(words: Sequence[str], *, whole: bool) -> str | None:
    """What the real parser says against a `preceptor` line; `whole` ones also need all that is required."""
    command: Any = typer.main.get_command(app)
    rest = list(words[1:])
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    if isinstance(command, TyperGroup) and not (command.invoke_without_command and whole):
        return None if not whole or rest == ["--help"] else "a command is missing"
    try:
        if whole:
            command.make_context(words[0], rest)
        else:
            context = command.context_class(command, info_name=words[0])
            command.make_parser(context).parse_args(args=rest)
    except typer._click.exceptions.UsageError as error:
        said = error.format_message()
        return None if "does not exist" in said else said
    return None


# ---- the pages are of the code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "page"), [("settings", settings_page), ("commands", commands_page)])
def test_a_reference_page_is_what_the_code_says_now(name: str, page: Any) -> None:
    written = (ROOT / f"docs/reference/{name}.md").read_text(encoding="utf-8")
    assert written == page(), f"docs/reference/{name}.md is stale: python -m connectors.reference docs/reference"


def test_every_setting_and_every_command_has_its_place() -> None:
    settings, commands = settings_page(), commands_page()
    for table in Config.model_fields:
        keys = Config.model_fields[table].annotation.model_fields
        part = settings.partition(f"## `[{table}]`")[2].partition("\n## ")[0]
        assert all(f"| `{key}` |" in part for key in keys), table
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    for name, command in root.commands.items():
        for leaf in getattr(command, "commands", {"": None}):
            assert f"## preceptor {name} {leaf}".rstrip() in commands.splitlines()


def test_no_help_text_loses_what_stands_in_brackets() -> None:
    texts = [text for command in every_command(typer.main.get_command(app)) for text in helps(command)]
    assert len(texts) > 100
    assert [text for text in texts if render(text).plain != text] == []


def every_command(command: Any) -> Iterator[Any]:
    """The command, and all that are below it."""
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from every_command(each)


def helps(command: Any) -> Iterator[str]:
    """What `--help` says of a command, its arguments and its options."""
    texts = [command.help, command.epilog, *(getattr(each, "help", None) for each in command.params)]
    yield from (text for text in texts if text)


# ---- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_says_what_it_holds(block: Block) -> None:
    assert block.language in LANGUAGES


@of("toml")
def test_a_config_in_the_docs_is_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block.text, encoding="utf-8")
    assert load(path) != Config(), "says nothing"


@of("jsonl")
def test_rows_in_the_docs_are_rows(block: Block) -> None:
    for line in block.text.splitlines():
        row = json.loads(line)
        known = {"question": "that of its item"} if {"key", "rationale"} <= row.keys() else {}
        assert checked(Raw("docs", 1, known | row)).key


@of("python")
def test_python_in_the_docs_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


def test_the_served_student_answers_as_the_docs_say(tmp_path: Path) -> None:
    (block,) = [each for each in BLOCKS if each.language == "python" and SERVED in each.text]
    tiny_model(tmp_path / "model")
    names: dict[str, Any] = {}
    with serving(a_trained_project(tmp_path)) as address:
        exec(block.text.replace(f"http://{SERVED}/v1", address), names)
        names["client"].close()
    assert names["reply"].choices[0].message.role == "assistant"


@of("bash")
def test_command_lines_in_the_docs_are_understood(block: Block) -> None:
    for words in command_lines(block.text):
        if words[0] == "preceptor":
            assert refusal(words, whole=True) is None, words
        else:
            assert is_excused(words), f"{shlex.join(words)}: tried by nothing, and no reason is given why not"


def is_excused(words: Sequence[str]) -> bool:
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return set(words[1:]) <= set(targets)
    return words[0] in NOT_RUN or bool(re.match(r"[A-Z_]+=", words[0]))


def test_each_reason_not_to_try_a_line_is_still_needed() -> None:
    first = {words[0] for block in BLOCKS if block.language == "bash" for words in command_lines(block.text)}
    assert set(NOT_RUN) - first == set(), "no block needs these reasons any more"


@pytest.mark.parametrize(
    "line", ["preceptor rum", "preceptor run --ronds 3", "preceptor review", "preceptor run --rounds many", "whoami"]
)
def test_a_line_that_is_not_understood_would_be_found(line: str) -> None:
    (words,) = command_lines(f"{line}  # a comment")
    assert not is_excused(words)
    assert words[0] != "preceptor" or refusal(words, whole=True)


# ---- commands and settings that texts name ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_settings_that_a_text_names_exist(page: Path) -> None:
    for span in code_spans(page):
        if WORDS.match(span):
            (words, *_) = command_lines(span)
            assert refusal(words, whole=False) is None, span
        table, key = found.groups() if (found := SETTING.match(span)) else ("", "")
        if table in Config.model_fields and key not in ("toml", "md", "py"):
            assert key in Config.model_fields[table].annotation.model_fields, span


@pytest.mark.parametrize("span", ["query.batch_sise = 3", "preceptor histry KEY", "preceptor run --ronds"])
def test_a_command_or_setting_that_is_not_there_would_be_found(span: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Set `{span}`.\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        test_commands_and_settings_that_a_text_names_exist(page)


# ---- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_of_a_page_are_there(page: Path) -> None:
    for token in tokens(page):
        target = token.attrGet("href") or token.attrGet("src") or ""
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("link", ["[a](other.md)", "![a](picture.png)", "[a](#elsewhere)", "[a](page.md#nowhere)"])
def test_a_link_that_leads_nowhere_would_be_found(link: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n{link} [fine](page.md#here)\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        test_links_and_pictures_of_a_page_are_there(page)


def anchors(page: Path) -> set[str]:
    """What headings are called in links."""
    text = page.read_text(encoding="utf-8")
    headings = (token for token in MarkdownIt().parse(text) if token.type in ("heading_open", "inline"))
    titles = (after.content for before, after in pairwise(headings) if before.type == "heading_open")
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_every_page_stands_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", json.dumps(yaml.safe_load(text)["nav"])))
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if ROOT / "docs" in page.parents}
    assert {page for page in pages if not page.startswith("decisions/")} <= named


@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason='needs pip install ".[docs]"; `make docs`')
def test_the_site_builds_strictly_with_all_pages_and_formulas(tmp_path: Path) -> None:
    """That no page fetches anything from elsewhere is looked at by docs/site.py, which fails the build."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        assert (tmp_path / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    assert "<math" in (tmp_path / "explanation/holds.html").read_text(encoding="utf-8")
    assert "latex" not in (tmp_path / "explanation/holds.html").read_text(encoding="utf-8").lower()


# ---- the tutorial ----------------------------------------------------------------------------------------------------


Runs = Callable[[list[str]], str]
FAST = {"rounds = 3": "rounds = 1", "epochs = 6": "epochs = 0.5"}
"""What is made smaller where the tutorial is tried in one process within seconds."""


def test_the_steps_of_the_tutorial_work_on_a_smaller_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = worked_through(tmp_path, in_this_process, FAST)
    assert json.loads(said["preceptor status --json"])["stage"] == "closed"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_works_as_it_stands(tmp_path: Path) -> None:
    said = worked_through(tmp_path, as_commands(tmp_path), {})
    assert json.loads(said["preceptor status --json"])["rounds"][-1]["student"]["accuracy"] > 0.8


def worked_through(folder: Path, run: Runs, changes: Mapping[str, str]) -> dict[str, str]:
    """The tutorial's files are written and its commands run, one after the other; what each said."""
    said = {}
    for block in steps_of_the_tutorial():
        if block.title:
            (folder / block.title).write_text(changed(block, changes), encoding="utf-8")
            continue
        for words in command_lines(block.text):
            said[shlex.join(words)] = run(words)
    assert "FAIL" not in said["preceptor doctor"]
    assert "simulated reviewer" in said["preceptor status"]
    for made in ("dataset/examples.jsonl", "student/README.md", "runs/tickets/report.html"):
        assert (folder / made).is_file()
    words = ["preceptor", "status", "--json"]
    return {**said, shlex.join(words): run(words)}


def changed(block: Block, changes: Mapping[str, str]) -> str:
    text = block.text
    for old, new in changes.items() if block.title == "config.toml" else ():
        assert old in text
        text = text.replace(old, new)
    return text


def steps_of_the_tutorial() -> list[Block]:
    """The blocks between the installation and what is said of a real teacher."""
    lines = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8").splitlines()
    start, end = (lines.index(each) for each in ("## 2. Make the data", "## With a real teacher and real people"))
    tried = [block for block in BLOCKS if block.page.name == "tutorial.md" and block.language != "text"]
    return [block for block in tried if start < block.line <= end]


def in_this_process(words: list[str]) -> str:
    """A command of ours by its entry point, for the libraries behind it take seconds to load."""
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
        return ""
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, f"{shlex.join(words)}: {done.output}{done.exception!r}"
    return done.output


def as_commands(folder: Path) -> Runs:
    """Commands as a reader types them."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def run(words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout

    return run
