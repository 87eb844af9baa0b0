"""Kills a campaign at every boundary, runs it again, and holds what comes of it against the campaign that lived.

Run as `python -m tests.crash_matrix build/crash-matrix`; again with the same folder it goes on. A site is a place in
the code that writes or speaks to a server (`tests/dying.py`); the campaign dies at its first, middle and last
occurrence, before it, amid it where it is a request, and after it.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cells import Row, run
from benchmarks.kept import code_hash
from connectors import campaign, sources, studio_server
from connectors.progress import RichProgress
from connectors.wiring import Project, cache_folder
from loop.records import Split
from tests.dying import ROOT, Boundaries, Moment, Side
from tests.tiny import tiny_project

NAMES = ("board", "site", "place", "occurrence", "side")
"""What tells a cell apart; `place` is first, middle or last."""
QUIET = RichProgress(Console(quiet=True))
FORK = get_context("forkserver")
"""Each campaign is a process of its own, forked from one that has loaded everything and done nothing."""
FORK.set_forkserver_preload(
    ["tests.crash_matrix", "loop.student.trainer", "transformers.models.llama.modeling_llama", "openai.resources.chat"]
    + [f"connectors.{name}" for name in ("openai_teacher", "recorded_teacher", "label_studio")]
)
SECONDS = 900.0
"""Within which a campaign ends, on a machine with much else to do."""
KILLED = -signal.SIGKILL
PACKAGES = ("loop", "review", "connectors")
STUDIO = ("label_studio.", "desk.", "simulated.", "review.")
"""Sites for which the real Label Studio stands there: those of the review."""
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
CHANGING = ("charge", "claim", "sqlite_sequence")
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
    """The tiny project, with a project of its own on the real server where that is its board."""
    config = tiny_project(folder, board=board)
    if board == "label_studio":
        table = f'[review]\nurl = "{os.environ["STUDIO_URL"]}"\nproject = "crash {uuid.uuid4().hex[:12]}"\n'
        config.write_text(config.read_text().replace("[review]\n", table))
    return config


def rows(config: Path, query: str) -> list[Any]:
    """What the database holds, read from outside."""
    with closing(sqlite3.connect(config.parent / "preceptor.db")) as connection:
        return [list(row) for row in connection.execute(query)]


def facts(config: Path) -> dict[str, Any]:
    """What came of a campaign."""
    found: dict[str, Any] = {name: rows(config, query) for name, query in SAME.items()}
    checkpoints = config.parent / "runs" / "tiny" / "checkpoints"
    found["files"] = sorted(str(each.relative_to(checkpoints)) for each in checkpoints.rglob("*"))
    weights = {each: hashlib.sha256(each.read_bytes()).hexdigest() for each in checkpoints.rglob("*.safetensors")}
    found["weights"] = {str(each.relative_to(checkpoints)): digest for each, digest in sorted(weights.items())}
    tables = [name for [name] in rows(config, "select name from sqlite_master where type = 'table' order by 1")]
    found["rows"] = {name: rows(config, f'select count(*) from "{name}"') for name in tables if name not in CHANGING}
    found["board"] = _on_the_board(config)
    paid = "select coalesce(sum(settled), 0) from charge where currency = 'USD' and state = 'SETTLED'"
    [[spent]] = rows(config, "select spent from balance where currency = 'USD' and scope = ''")
    found["sum of the payments is what is spent"] = rows(config, paid) == [[spent]]
    return json.loads(json.dumps(found))


def _on_the_board(config: Path) -> list[Any]:
    """The tasks that stand on the boards with how often each was answered, and how many projects hold them."""
    project, found = Project(config, QUIET), []
    for board in project.open_boards():
        stands = board.listing(board.project())
        found.append([len(board.projects()), sorted([each.uid, len(each.verdicts)] for each in stands)])
        if hasattr(board, "close"):
            board.close()
    project.store.close()
    return found


def cell(reference: Mapping[str, Any], code: str, *key: Any) -> Row:
    """One campaign that is killed and run again; `differences` is what came out otherwise.

    Requests under way at once come in another order each time, so that a site may be passed less often: then the
    campaign dies at the last time that it is.
    """
    began, (board, site, _, occurrence, side) = time.monotonic(), key
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        config, ended = a_project(Path(folder) / "0", board), 0
        for tried in range(occurrence, 0, -1):
            ended = in_a_process(config, Moment(site, tried, side))
            if ended != 0:
                break
            config = a_project(Path(folder) / str(tried), board)
        row = dict(zip(NAMES, key, strict=True)) | {"code": code, "died_at": tried}
        if ended != KILLED:
            why = said(config)[-2000:] if ended else "it was not reached"
            return row | {"differences": [f"the kill: exit code {ended}; {why}"], "assumed": []}
        row |= resumed(config, reference)
    return row | {"seconds": round(time.monotonic() - began, 1)}


def resumed(config: Path, wanted: Mapping[str, Any], first: Callable[[], None] | None = None) -> Row:
    """What comes of a campaign that was cut off and is run again: what differs, and what was charged at worst case."""
    held = _held(config)
    ended = in_a_process(config, first=first)
    if ended:
        return {"differences": [f"run again: exit code {ended}; {said(config)[-2000:]}"], "assumed": []}
    found = facts(config)
    assumed = rows(config, "select id, purpose, settled from charge where currency = 'USD' and assumed")
    differences = [f"{name}: {found[name]} and not {wanted[name]}" for name in wanted if found[name] != wanted[name]]
    differences += [f"money: {each} was not held at the kill" for each in assumed if each not in held]
    return {"differences": differences, "assumed": [[purpose, amount] for _, purpose, amount in assumed]}


def _held(config: Path) -> list[Any]:
    """The holds in flight: id, purpose, amount."""
    try:
        return rows(config, "select id, purpose, reserved from charge where currency = 'USD' and state = 'RESERVED'")
    except sqlite3.OperationalError:  # killed before there were tables
        return []


def said(config: Path) -> str:
    """What the processes of a campaign said."""
    return (config.parent / "said.txt").read_text(encoding="utf-8")


def wanted(board: str, counts: Mapping[str, int]) -> list[tuple[str, str, str, int, Side]]:
    """The cells of a board: each site at its first, middle and last occurrence, on every side."""
    cells: list[tuple[str, str, str, int, Side]] = []
    for site, many in sorted(counts.items()):
        if board == "label_studio" and not any(f" {each}" in site for each in STUDIO):
            continue
        places = {1: "first"} | {many: "last"} | {(many + 1) // 2: "middle"} | {1: "first"}
        sides: tuple[Side, ...] = ("before", "amid", "after") if site.startswith("request") else ("before", "after")
        cells += [(board, site, place, number, side) for number, place in sorted(places.items()) for side in sides]
    return cells


def matrix(
    folder: Path, boards: Sequence[str], *, jobs: int, choose: Callable[[Any], bool] = lambda _: True
) -> list[Row]:
    """Run what is missing of the matrix, `jobs` campaigns side by side; each cell is stored when it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    code = code_hash([str(each.relative_to(ROOT)) for name in PACKAGES for each in (ROOT / name).rglob("*.py")])
    cells = [each for each in _stored(folder / "cells.jsonl") if each["code"] == code]
    for board in boards:
        with _standing(board, folder):
            reference = unkilled(board)
            chosen = [each for each in wanted(board, reference.counts) if choose(each)]
            one = partial(cell, reference.facts, code)
            run(chosen, NAMES, cells, one, jobs=jobs, write=partial(_store, folder / "cells.jsonl"))
    return cells


def unkilled(board: str) -> Lived:
    """The campaign that nobody kills."""
    with tempfile.TemporaryDirectory(prefix="crash-") as home:
        config, counts = a_project(Path(home), board), Path(home) / "counts.json"
        if in_a_process(config, counts=counts):
            raise RuntimeError(said(config))
        return Lived(facts(config), json.loads(counts.read_text(encoding="utf-8")))


@contextmanager
def _standing(board: str, folder: Path) -> Iterator[None]:
    """The real server, where it is the board and does not stand there yet; its address is in the environment."""
    if board != "label_studio" or "STUDIO_URL" in os.environ:
        yield
        return
    studio = studio_server.start(folder / "studio", cache=cache_folder(), port=0, say=print)
    os.environ |= {"STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    try:
        yield
    finally:
        studio_server.stop(studio)
        del os.environ["STUDIO_URL"]


def _stored(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _store(file: Path, cells: Sequence[Row]) -> None:
    partial_file = file.with_suffix(".partial")
    partial_file.write_text("".join(json.dumps(each) + "\n" for each in cells), encoding="utf-8")
    partial_file.replace(file)


def table(cells: Sequence[Row]) -> Table:
    """A line a site; of each occurrence, how many of its kills came out the same."""
    shown = Table("board", "site", "first", "middle", "last", title="kills that came out the same, of all")
    by_site: defaultdict[tuple[str, str], defaultdict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for each in cells:
        by_site[each["board"], each["site"]][each["place"]].append(each)
    for (board, site), places in sorted(by_site.items()):
        shown.add_row(board, site, *(_share(places.get(place, [])) for place in ("first", "middle", "last")))
    return shown


def _share(some: Sequence[Row]) -> str:
    return f"{sum(not each['differences'] for each in some)}/{len(some)}" if some else ""


def summary(cells: Sequence[Row]) -> str:
    """The size of the matrix and its result in a few lines."""
    failed = [each for each in cells if each["differences"]]
    charged = [each for each in cells if each["assumed"]]
    amounts = Counter(len(each["assumed"]) for each in charged)
    sites = {(each["board"], each["site"]) for each in cells}
    lines = [
        f"{len(cells)} kills at {len(sites)} sites: {len(cells) - len(failed)} came out the same, {len(failed)} not",
        f"in {len(charged)} of them requests in flight were charged at worst case, "
        + ", ".join(f"{many} in {times}" for many, times in sorted(amounts.items())),
    ]
    lines += [f"{[each[name] for name in NAMES]}: {line[:600]}" for each in failed for line in each["differences"]]
    return "\n".join(lines)


def main() -> None:
    """Run the matrix and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--board", nargs="+", default=["fake", "label_studio"])
    parser.add_argument("--only", default="", help="a part of the sites' names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--anew", action="store_true", help="forget the cells that are stored")
    given = parser.parse_args()
    if given.anew:
        shutil.rmtree(given.folder, ignore_errors=True)
    cells = matrix(given.folder, given.board, jobs=given.jobs, choose=lambda each: given.only in each[1])
    with (given.folder / "table.txt").open("w", encoding="utf-8") as file:
        for console in (Console(width=160), Console(file=file, width=160)):
            console.print(table(cells))
            console.print(summary(cells), markup=False, highlight=False)
    raise SystemExit(any(each["differences"] for each in cells))


if __name__ == "__main__":
    main()
