"""The whole loop on a project whose truth is known, once for each acquisition function and seed, side by side.

The teacher is recorded and the reviewer simulated; everything between is what `preceptor run` does. Each cell keeps a
store of its own, so a simulation that was cut off goes on where it stopped.
"""

import hashlib
import json
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import accumulate
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console, Group
from rich.table import Column, Table
from rich.text import Text

from connectors import atomic, campaign, charts
from connectors.coverage import Coverage, coverage
from connectors.curves import Curve, common, gain
from connectors.progress import RichProgress
from connectors.status import round_figures
from connectors.wiring import Project
from loop.config import Config, TrackingConfig
from loop.errors import AlreadyWorking, BadConfig, PreceptorError, extra
from loop.interval import of_mean
from loop.ports import Bar, Progress
from loop.stages import pruning
from loop.store import counting, items
from loop.store.database import Store

BASELINE = "random"
ITEMS = "items.db"
"""A store with the items that all campaigns of a folder begin with."""
FILES = ("recorded", "truth")
"""Settings that name a file whose content counts."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One campaign of the simulation."""

    acquisition: str
    seed: int

    @property
    def name(self) -> str:
        """Also the name of its run and its files."""
        return f"{self.acquisition}-{self.seed}"


@dataclass(frozen=True)
class Failed:
    """A campaign that ended with an error."""

    cell: Cell
    error: BaseException

    def __str__(self) -> str:
        """What went wrong: a sentence where the user can act on it, else all that helps to find the mistake."""
        if isinstance(self.error, PreceptorError):
            said = str(self.error)
        elif isinstance(self.error, BrokenProcessPool):
            said = "its process was killed; where memory ran out, fewer --jobs need less"
        else:
            said = "".join(traceback.format_exception(self.error)).rstrip()
        return f"{self.cell.name} failed: {said}"


@dataclass(frozen=True)
class Simulated:
    """What came of all campaigns: the results of those that are done, in the cells' order, and those that failed.

    `beside` are the results of random for the same seeds, where an earlier call made them and this one did not ask.
    """

    folder: Path
    pool: Coverage
    results: Sequence[Row]
    failed: Sequence[Failed]
    beside: Sequence[Row] = ()

    @property
    def compared(self) -> list[Row]:
        """What figures are of."""
        return [*self.results, *self.beside]

    def as_json(self) -> Row:
        """The same for programs."""
        return {
            "folder": str(self.folder),
            "pool": asdict(self.pool),
            "acquisitions": summary(self.compared),
            "cells": self.compared,
            "failed": [
                {"acquisition": each.cell.acquisition, "seed": each.cell.seed, "error": str(each)}
                for each in self.failed
            ],
        }

    def examine(self) -> None:
        """Say at the end what is missing.

        Raises:
            PreceptorError: some campaigns failed.
        """
        if self.failed:
            raise PreceptorError(
                f"{len(self.failed)} of {len(self.failed) + len(self.results)} campaigns failed: "
                f"{', '.join(each.cell.name for each in self.failed)}; why is told above. Call it again once that is "
                "mended: what is stored is kept, and with the same settings and files only these are run, from where "
                "they stopped"
            )


def simulate(project: Project, cells: Sequence[Cell], *, rounds: int, jobs: int) -> Simulated:
    """Run all cells that are not done, several at once; one that fails is told, and holds up no other.

    Raises:
        BadConfig: the project has no recorded teacher or no simulated reviewer, or they know nothing of its items.
        PoolEmpty: nothing was ingested.
        AlreadyWorking: another process simulates this run.
    """
    recorded, truth = project.config.teacher.recorded, project.config.simulated_reviewer.truth
    if recorded is None or truth is None:
        raise BadConfig("a simulation needs teacher.recorded and simulated_reviewer.truth; `make demo` writes both")
    project.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(project.folder / ".simulate.lock", timeout=0):
            known = coverage(project, project.home / recorded, project.home / truth)
            for line in known.lines():
                project.progress.say(line)
            folder = _folder(project, rounds)
            failed = _run_all(project, folder, cells, rounds=rounds, jobs=jobs)
    except Timeout as error:
        raise AlreadyWorking(f"{project.folder}: another `preceptor simulate` is at work here; wait for it") from error
    random = [
        each for seed in dict.fromkeys(cell.seed for cell in cells) if (each := Cell(BASELINE, seed)) not in cells
    ]
    return Simulated(folder, known, results_of(folder, cells), failed, beside=results_of(folder, random))


def results_of(folder: Path, cells: Iterable[Cell]) -> list[Row]:
    """The results of those cells that are done."""
    return [_read(file) for cell in cells if (file := folder / f"{cell.name}.json").exists()]


def all_results(folder: Path) -> list[Row]:
    """The results of all cells of a folder that are done, whichever call made them."""
    return sorted(map(_read, folder.glob("*.json")), key=lambda each: (each["acquisition"], each["seed"]))


def _read(file: Path) -> Row:
    found: Row = json.loads(file.read_text(encoding="utf-8"))
    return found


def _run_all(project: Project, folder: Path, cells: Sequence[Cell], *, rounds: int, jobs: int) -> list[Failed]:
    """Run the cells of a folder that have no result yet; those that failed."""
    todo = [cell for cell in cells if not (folder / f"{cell.name}.json").exists()]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with (
        project.progress.bar("campaigns are simulated", len(cells)) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        bar.advance(len(cells) - len(todo))
        running = {pool.submit(_apart, project.path, folder, cell, rounds, threads): cell for cell in todo}
        try:
            return _failures(running, project.progress, bar)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():  # the threads wait for what they are at
                worker.terminate()
            raise


def _apart(path: Path, folder: Path, cell: Cell, rounds: int, threads: int) -> None:
    """Run one campaign in a process of its own: one that is killed, as for memory, ends no other."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=leave_with_parent) as pool:
        pool.submit(run_cell, path, folder, cell, rounds, threads).result()


def _failures(running: Mapping[Future[None], Cell], progress: Progress, bar: Bar) -> list[Failed]:
    """Wait for all cells; those that failed, each told when it did."""
    failed = []
    for done in as_completed(running):
        error = done.exception()
        if error is None:
            bar.advance()
        else:
            failed.append(Failed(running[done], error))
            progress.say(str(failed[-1]))
    return failed


def leave_with_parent() -> None:
    """Have this worker end at Ctrl-C and with the process that started it; the next call goes on from what is kept."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_cell(path: Path, folder: Path, cell: Cell, rounds: int, threads: int) -> None:
    """Run one campaign in a store of its own and write what each round cost and gave; the students' weights go."""
    with extra("student", "a student"):
        import torch  # noqa: PLC0415 - seconds, and only in the processes that work

    torch.set_num_threads(threads)
    project = Project(path, RichProgress(Console(quiet=True)))
    project.config = _config_of(project.config, folder, cell)
    _copied(folder / ITEMS, folder / f"{cell.name}.db")
    ended = campaign.run(project, rounds_wanted=rounds, wait=False, to_the_end=True)
    figures = round_figures(project.store, cell.name, counting.verdicts(project.store, cell.name))
    spent = accumulate(each["usd"] for each in figures)
    result = {
        "acquisition": cell.acquisition,
        "seed": cell.seed,
        "ended": {"outcome": ended.outcome.name.lower(), "text": ended.text, "early": len(figures) < rounds},
        "rounds": [{**each, "usd_so_far": usd} for each, usd in zip(figures, spent, strict=True)],
    }
    pruning.remove_all_weights(project.store, cell.name, project.folder / "checkpoints")
    atomic.write_text(folder / f"{cell.name}.json", json.dumps(result, indent=1))


def summary(results: Sequence[Row]) -> list[Row]:
    """For each acquisition function the mean over seeds of the last accuracy, of the accuracy at equal dollars, and how
    much the latter is above random's, with Student's 95 % interval over seeds that both have.

    Equal dollars are those that all functions had spent with a student in the campaigns of one seed, and above random
    those that both had. Rounds without a student cost their dollars, and no accuracy is made up for them; seeds that
    never got one, and those without a sum in common with random, are named, and so is why a campaign ended early.
    """
    curves = _all_curves(results)
    baseline = curves.get(BASELINE, {})
    means = _means(curves)
    rows = []
    for name in dict.fromkeys(each["acquisition"] for each in results):
        own = curves.get(name, {})
        shared = sorted(own.keys() & baseline.keys()) if name != BASELINE else []
        compared = {seed: gain(own[seed], baseline[seed]) for seed in shared}
        gains = [each for each in compared.values() if each is not None]
        rows.append(
            {
                "acquisition": name,
                "seeds": len(own),
                "last": _mean([curve.accuracy[-1] for curve in own.values()]),
                "mean": _mean([means[seed][name] for seed in own if name in means[seed]]),
                "usd": _mean([curve.usd[-1] for curve in own.values()]),
                "gain": _mean(gains),
                "interval": of_mean(gains) if len(gains) > 1 else None,
                "without_student": sorted(
                    each["seed"] for each in results if each["acquisition"] == name and each["seed"] not in own
                ),
                "apart": [seed for seed, each in compared.items() if each is None],
                "ended": [
                    {"seed": each["seed"], "rounds": len(each["rounds"]), "why": why}
                    for each in results
                    if each["acquisition"] == name and (why := _why_short(each, has_student=each["seed"] in own))
                ],
            }
        )
    return rows


def summary_text(rows: Sequence[Row]) -> Group:
    """The summary for people; below it the seeds that count nowhere, or not against random, and what ended early."""
    names = [row["acquisition"] for row in rows]
    table = Table(
        Column("acquisition", no_wrap=True, min_width=max(map(len, names), default=0)),
        "seeds",
        "usd",
        "last accuracy",
        "mean at equal dollars",
        "above random (95 %)",
        box=None,
        pad_edge=False,
    )
    for row in sorted(rows, key=lambda row: -(row["mean"] or 0)):
        table.add_row(
            row["acquisition"],
            str(row["seeds"]),
            _number(row["usd"], 4),
            _number(row["last"], 3),
            _number(row["mean"], 3),
            _gain_text(row),
        )
    notes = [note for row in rows for note in _notes(row)]
    if BASELINE not in names:
        notes.append(
            f"no campaign of {BASELINE} is done, so nothing is compared with it; --acquisition {BASELINE} runs them"
        )
    return Group(table, *map(Text, notes))


def draw(results: Sequence[Row], file: Path) -> None:
    """Accuracy against dollars for each acquisition function: the mean over seeds, and the range as a band.

    Drawn over the dollars that all its seeds had spent with a student.
    """
    curves = {}
    for name, by_seed in _all_curves(results).items():
        some = list(by_seed.values())
        if both := common(some):
            every = np.unique([*both, *(usd for curve in some for usd in curve.usd)])
            usd = every[(every >= both[0]) & (every <= both[1])]
            curves[name] = usd, np.array([curve.at(usd) for curve in some])
    file.write_text(charts.comparison(curves), encoding="utf-8")


def _config_of(config: Config, folder: Path, cell: Cell) -> Config:
    run = {"name": cell.name, "folder": folder, "database": f"sqlite:///{folder / cell.name}.db", "seed": cell.seed}
    return config.model_copy(
        update={
            "run": config.run.model_copy(update=run),
            "query": config.query.model_copy(update={"acquisition": cell.acquisition}),
            "review": config.review.model_copy(update={"board": "fake"}),
            "evaluation": config.evaluation.model_copy(update={"saving_pairs": 0, "closer_items": 0}),
            "tracking": TrackingConfig(),
        }
    )


def _folder(project: Project, rounds: int) -> Path:
    """The folder of the results, with a store that holds the items as they are now and nothing else.

    The items are copied and read a few at a time.
    """
    within = project.folder / "simulate"
    within.mkdir(parents=True, exist_ok=True)
    partial = within / f".{ITEMS}.partial"
    partial.unlink(missing_ok=True)
    with closing(Store(f"sqlite:///{partial}")) as store:
        store.migrate()
        items.copy(project.store, store)
        rows = (item.model_dump(mode="json") for item in items.in_order(store))
        folder = within / _settings_hash(project.config, project.home, rows, rounds)
    folder.mkdir(exist_ok=True)
    partial.replace(folder / ITEMS)
    return folder


def _copied(file: Path, to: Path) -> None:
    """Copy a file, whole or not at all, unless the copy is there."""
    if not to.exists():
        partial = to.with_name(f".{to.name}.partial")
        shutil.copyfile(file, partial)
        partial.replace(to)


def _settings_hash(config: Config, home: Path, rows: Iterable[Row], rounds: int) -> str:
    """What the results depend on besides acquisition function and seed; recorded replies and truth as they are now.

    Raises:
        BadConfig: one of these files cannot be read.
    """
    body = config.model_dump(mode="json", exclude={"run": True, "query": {"acquisition"}, "tracking": True})
    told = hashlib.sha256(f"[{json.dumps(_by_content(body, home), sort_keys=True)}, [".encode())
    for place, row in enumerate(rows):
        told.update(f"{', ' if place else ''}{json.dumps(row, sort_keys=True)}".encode())
    told.update(f"], {rounds}]".encode())
    return told.hexdigest()[:12]


def _by_content(table: Row, home: Path) -> Row:
    """Settings with the hash of a file's bytes in the place of its path."""
    found = dict(table)
    for key, value in table.items():
        if isinstance(value, dict):
            found[key] = _by_content(value, home)
        elif key in FILES and value is not None:
            try:
                found[key] = hashlib.sha256((home / value).read_bytes()).hexdigest()
            except OSError as error:
                raise BadConfig(f"{key} = {value!r} cannot be read ({error}); name a file that is there") from error
    return found


def _all_curves(results: Sequence[Row]) -> dict[str, dict[int, Curve]]:
    """Dollars spent and test accuracy after each round that has a student, by acquisition function and seed."""
    curves: dict[str, dict[int, Curve]] = {}
    for each in results:
        rounds = [row for row in each["rounds"] if row["student"]]
        if rounds:
            curves.setdefault(each["acquisition"], {})[each["seed"]] = Curve(
                [row["usd_so_far"] for row in rounds], [row["student"]["accuracy"] for row in rounds]
            )
    return curves


def _means(curves: Mapping[str, Mapping[int, Curve]]) -> dict[int, dict[str, float]]:
    """By seed the mean accuracy of each function over the dollars that all of them had spent in it."""
    by_seed: dict[int, dict[str, Curve]] = {}
    for name, some in curves.items():
        for seed, curve in some.items():
            by_seed.setdefault(seed, {})[name] = curve
    shared = {seed: common(list(some.values())) for seed, some in by_seed.items()}
    return {
        seed: {name: curve.mean(*both) for name, curve in some.items()} if (both := shared[seed]) else {}
        for seed, some in by_seed.items()
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _why_short(result: Row, *, has_student: bool) -> str:
    """Why a campaign ended before its rounds were over or without a student; nothing where neither is so."""
    ended = result.get("ended") or {"text": "why is not known: an older version ran it", "early": False}
    if ended["early"] or has_student:
        return str(ended["text"]) if ended["early"] else ""
    if not result.get("ended"):
        return str(ended["text"])
    accepted = sum(each["accepted"] for each in result["rounds"])
    return f"none of {accepted} accepted rationales could be learned" if accepted else "nothing was accepted"


def _notes(row: Mapping[str, Any]) -> list[str]:
    name, never = row["acquisition"], row["without_student"]
    why = [
        f"{name}: no student in any round of seed {each['seed']}, which counts nowhere: {each['why']}"
        if each["seed"] in never
        else f"{name}: seed {each['seed']} ended after round {each['rounds']}: {each['why']}"
        for each in row["ended"]
    ]
    apart = ", ".join(map(str, row["apart"]))
    return [
        *why,
        *([f"{name}: seed {apart} shares no dollars with {BASELINE}, so it is not compared"] if apart else []),
    ]


def _gain_text(row: Mapping[str, Any]) -> str:
    if row["gain"] is None:
        return "-"
    if row["interval"] is None:
        return f"{row['gain']:+.3f} (one seed: no interval)"
    low, high = row["interval"]
    return f"{row['gain']:+.3f} ({low:+.3f} to {high:+.3f})"
