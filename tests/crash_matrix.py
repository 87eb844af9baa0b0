"""Kills a campaign at every boundary, runs it again, and holds what comes of it against the campaign that lived.

Run as `python -m tests.crash_matrix build/crash-matrix`; again with the same folder it goes on. A site is a place in
the code that writes or speaks to a server (`tests/dying.py`); the campaign dies at its first, middle and last
occurrence, before it, amid it where it is a request, and after it.
"""

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from benchmarks.cells import Row, run
from benchmarks.kept import code_hash
from connectors import studio_server
from connectors.wiring import cache_folder
from tests.dying import ROOT, Moment, Side
from tests.whole_campaign import a_project, facts, in_a_process, rows, said, unkilled

NAMES = ("board", "site", "place", "occurrence", "side")
"""What tells a cell apart; `place` is first, middle or last."""
KILLED = -signal.SIGKILL
PACKAGES = ("loop", "review", "connectors")
STUDIO = ("label_studio.", "label_studio_import.", "label_studio_projects.", "desk.", "simulated.", "review.")
"""Sites for which the real Label Studio stands there: those of the review."""


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
    except DBAPIError:  # killed before there were tables
        return []


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
    known: set[str] = set()
    for board in boards:
        with _standing(board, folder):
            reference = unkilled(board)
            new = [each for each in wanted(board, reference.counts) if board != "wide" or each[1] not in known]
            known |= {*reference.counts}
            chosen = [each for each in new if choose(each)]
            one = partial(cell, reference.facts, code)
            run(chosen, NAMES, cells, one, jobs=jobs, write=partial(_store, folder / "cells.jsonl"))
    return cells


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
    parser.add_argument("--board", nargs="+", default=["fake", "wide", "label_studio"])
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
