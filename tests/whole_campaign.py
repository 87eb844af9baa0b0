"""A whole campaign in a process of its own, which may die or fail in it, and what came of it."""

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from connectors import campaign, sources
from connectors.progress import RichProgress
from connectors.wiring import Project
from loop.records import Split
from tests import databases
from tests.dying import Boundaries, Moment
from tests.forked import FORK
from tests.tiny import tiny_project

QUIET = RichProgress(Console(quiet=True))
SECONDS = 900.0
"""Within which a campaign ends, on a machine with much else to do."""
WIDE = {
    "student": 'start = "warm"',
    "query": "random_share = 0.34",
    "teacher": 'revise = "auto"\nsamples = 2\ntemperature = 0.7',
    "review": "planted_share = 0.3\nsecond_share = 0.5\ntasks_per_project = 3",
    "simulated_reviewer": "error_rate = 0.3\ncontinue_share = 0.5",
    "checkpoints": "keep = 1",
}
"""What a campaign does that does all that it can without a judge and without batches: samples that vote, revision,
planted errors, blind second reviews and adjudication, corrected steps to go on from, a warm student, removed weights.
"""
SAME = {
    "decisions": "select item_key, kind, reason, certified, round_id from decision order by id",
    "replies": "select item_key, sample, text, input_tokens, output_tokens from reply order by item_key, sample",
    "queries": "select round_id, item_key, audit, certify from query order by round_id, item_key",
    "risks": "select r.item_key, k.value from risk k join rationale r on r.id = k.rationale_id order by 1, 2",
    "tasks": "select uid, slot, reason from reviewtask order by uid",
    "verdicts": "select r.item_key, v.slot, v.kind, v.steps, v.answer, v.seconds from verdict v"
    " join rationale r on r.id = v.rationale_id order by 1, 2, 3",
    "payments": "select currency, purpose, settled from charge where state = 'SETTLED' and not assumed"
    " order by 1, 2, 3",
    "minutes": "select spent, reserved from balance where currency = 'MINUTES' and scope = ''",
    "held money": "select sum(reserved) from balance where currency = 'USD'",
    "predictions": "select item_key, answer from prediction order by checkpoint_id, item_key",
    "versions": "select hash from dataversion order by 1",
    "rounds": "select number, stage, selection from round order by number",
}
"""What the killed campaign must have as the other has it, each a query; and as many rows in every table."""
CHANGING = ("charge", "claim")
"""Tables whose number of rows is another after a kill; what was paid is compared by itself."""


@dataclass(frozen=True)
class Lived:
    """What came of a campaign, and how often it passed each site."""

    facts: Mapping[str, Any]
    counts: Mapping[str, int]


def lived(config: Path) -> None:
    """The whole campaign in this process: take the items in, and run until it is finished."""
    project = Project(config, QUIET)
    settings = project.config
    for split in (Split.HOLDOUT, Split.POOL):
        files = [config.parent / f"{split}.jsonl"]
        sources.ingest(
            files, project.store, split=split, pool=settings.pool, task=settings.task, progress=project.progress
        )
    ended = campaign.run(project, rounds_wanted=2, wait=False)
    assert ended.outcome is campaign.Outcome.FINISHED, ended.text
    project.store.close()


def in_a_process(
    config: Path, moment: Moment | None = None, *, counts: Path | None = None, first: Callable[[], None] | None = None
) -> int:
    """How a process ends that lives through the campaign, or dies in it; what it says is beside the config.

    `first` is what befalls the process before it begins.
    """
    told = {name: os.environ[name] for name in ("LABEL_STUDIO_API_KEY",) if name in os.environ}
    process = FORK.Process(target=_begin, args=(config, moment, counts, first, told))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.terminate()
        process.join()
    return process.exitcode or 0


def _begin(
    config: Path,
    moment: Moment | None,
    counts: Path | None,
    first: Callable[[], None] | None,
    told: Mapping[str, str],
) -> None:
    """In the new process: watch the boundaries, and live."""
    import torch  # noqa: PLC0415 - it takes seconds to load, and only this process needs it

    from loop.student import state  # noqa: PLC0415 - as above

    out = os.open(config.parent / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.environ |= told
    torch.set_num_threads(1)
    state.EVERY, state.SHARE = 0.0, 1.0  # the training keeps how far it is after every step
    boundaries = Boundaries(config.parent, moment)
    boundaries.watch()
    if first is not None:
        first()
    lived(config)
    if counts is not None:
        counts.write_text(json.dumps(boundaries.counts), encoding="utf-8")


def a_project(folder: Path, board: str) -> Path:
    """The tiny project: plain, with projects of its own on the real server, or doing all that it can."""
    config = tiny_project(folder, board="label_studio" if board == "label_studio" else "fake")
    if board == "wide":
        text = config.read_text()
        for table, more in WIDE.items():
            text = (
                text.replace(f"[{table}]\n", f"[{table}]\n{more}\n")
                if f"[{table}]" in text
                else text + f"[{table}]\n{more}\n"
            )
        config.write_text(text.replace("error_rate = 0.0\n", ""))
    if board == "label_studio":
        table = f'[review]\nurl = "{os.environ["STUDIO_URL"]}"\nproject = "crash {uuid.uuid4().hex[:12]}"\n'
        table += "tasks_per_project = 2\n"
        config.write_text(config.read_text().replace("[review]\n", table))
    return config


def rows(config: Path, query: str) -> list[Any]:
    """What the database holds, read from outside."""
    return [list(row) for row in databases.rows(config.parent / "preceptor.db", query)]


def facts(config: Path) -> dict[str, Any]:
    """What came of a campaign."""
    found: dict[str, Any] = {name: rows(config, query) for name, query in SAME.items()}
    checkpoints = config.parent / "runs" / "tiny" / "checkpoints"
    found["files"] = sorted(str(each.relative_to(checkpoints)) for each in checkpoints.rglob("*"))
    weights = {each: hashlib.sha256(each.read_bytes()).hexdigest() for each in checkpoints.rglob("*.safetensors")}
    found["weights"] = {str(each.relative_to(checkpoints)): digest for each, digest in sorted(weights.items())}
    tables = databases.tables(config.parent / "preceptor.db")
    found["rows"] = {name: rows(config, f'select count(*) from "{name}"') for name in tables if name not in CHANGING}
    found["board"] = _on_the_board(config)
    paid = "select coalesce(sum(settled), 0) from charge where currency = 'USD' and state = 'SETTLED'"
    [[spent]] = rows(config, "select spent from balance where currency = 'USD' and scope = ''")
    found["sum of the payments is what is spent"] = rows(config, paid) == [[spent]]
    return json.loads(json.dumps(found, default=float))  # PostgreSQL adds up to exact decimals


def _on_the_board(config: Path) -> list[Any]:
    """The tasks that stand on the boards with how often each was answered, and how many projects hold them."""
    project, found = Project(config, QUIET), []
    for board in project.open_boards():
        [projects] = board.projects()
        stands = [each for project in projects for each in board.listing(project)]
        found.append([len(projects), sorted([each.uid, len(each.verdicts)] for each in stands)])
        if hasattr(board, "close"):
            board.close()
    project.store.close()
    return found


def said(config: Path) -> str:
    """What the processes of a campaign said."""
    return (config.parent / "said.txt").read_text(encoding="utf-8")


def unkilled(board: str) -> Lived:
    """The campaign that nobody kills."""
    with tempfile.TemporaryDirectory(prefix="crash-") as home:
        config, counts = a_project(Path(home), board), Path(home) / "counts.json"
        if in_a_process(config, counts=counts):
            raise RuntimeError(said(config))
        return Lived(facts(config), json.loads(counts.read_text(encoding="utf-8")))
