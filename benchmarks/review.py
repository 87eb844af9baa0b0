"""Pushing reviews to Label Studio and pulling verdicts, beside its bare API in the same run.

A real server on loopback. Ours is what `preceptor run` does: read what waits, build the tasks, import, note where each
stands; list, interpret and store every verdict with its minutes. Its rests between imports, which double the time of an
import, are left out. The bare API gets the same tasks ready-made in pieces of the same size, or reads the same pages
with the same fields and keeps nothing. Each runs in a process of its own and makes its own project; who comes first
changes with every repetition. Tasks are of two kilobytes with an edit prefilled.

What it saves that a reviewer can let the teacher go on (`seconds_ratio_continue`) is measured apart.
Run as `python -m benchmarks.review --json FILE [--quick] [--seeds N]`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.kept import ROOT, figure, ratio, write
from connectors import label_studio_import, studio_server
from connectors.label_studio import ANNOTATION
from connectors.label_studio_import import PIECE
from connectors.progress import RichProgress
from connectors.wiring import Project, cache_folder
from loop.answer import Answer, AnswerKind
from loop.records import Author, Item, Query, Rationale, Risk, Round, Score, Split, Stage, VerdictKind
from loop.store import items, rationales, reviews, rounds
from loop.store.money import Purse
from review.task import Details, board_task, result

RUN = "bench"
SIZES = (200, 1000, 10_000)
MEMORY_MIB = 300
"""What our process may take at most."""
SOURCES = [
    "benchmarks/review.py",
    "connectors/label_studio.py",
    "connectors/label_studio_import.py",
    "connectors/label_studio_projects.py",
    "review/desk.py",
    "review/task.py",
    "loop/store/reviews.py",
]
Row = dict[str, Any]


def main() -> None:
    """Measure push and pull of each size, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, help="not used: the tasks are made here")
    parser.add_argument("--quick", action="store_true", help="200 tasks only")
    parser.add_argument("--seeds", type=int, default=5, help="repetitions")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(WAYS[chosen.one[0]](Path(chosen.one[1]))))
        return
    sizes = SIZES[:1] if chosen.quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        studio = studio_server.start(Path(folder) / "studio", cache=cache_folder(), port=0, say=print)
        try:
            cells = [
                cell
                for size in sizes
                for repetition in range(chosen.seeds)
                for cell in _measured(Path(folder) / f"{size}-{repetition}", studio, size, repetition)
            ]
        finally:
            studio_server.stop(studio)
    figures = _figures(cells, sizes)
    settings = {
        "sizes": list(sizes),
        "repetitions": chosen.seeds,
        "piece": PIECE,
        "label_studio": f"{studio_server.VERSION} on SQLite, on the same machine",
        "time": "seconds by the clock; where the interval is wide, something else was at work",
        "peak_mib": f"largest resident size of our process, at most {MEMORY_MIB} wanted",
    }
    if chosen.json:
        write(chosen.json, "review", settings=settings, figures=figures, sources=SOURCES, cells=cells)
    _print(cells, figures)


def _figures(cells: list[Row], sizes: tuple[int, ...]) -> Row:
    figures: Row = {}
    for size in sizes:
        for name in ("push", "pull"):
            ours, bare = (
                [cell["seconds"] for cell in cells if (cell["way"], cell["size"]) == (way, size)]
                for way in (name, f"bare {name}")
            )
            figures[f"{name}_ratio.{size}"] = ratio(ours, bare, "of the bare API's time")
    for name in ("push", "pull"):
        if sizes == SIZES:
            figures[f"{name}_ratio"] = figures[f"{name}_ratio.{SIZES[-1]}"]
    peaks = [cell["peak_mib"] for cell in cells if cell["size"] == sizes[-1] and not cell["way"].startswith("bare")]
    figures[f"peak_mib.{sizes[-1]}"] = figure(max(peaks), min(peaks), max(peaks), "MiB")
    return figures


def _print(cells: list[Row], figures: Mapping[str, Any]) -> None:
    table = Table("way", "tasks", "seconds", "CPU seconds", "peak MiB", box=None)
    for way, size in dict.fromkeys((cell["way"], cell["size"]) for cell in cells):
        same = [cell for cell in cells if (cell["way"], cell["size"]) == (way, size)]
        means = [f"{np.mean([cell[name] for cell in same]):.2f}" for name in ("seconds", "cpu_seconds")]
        table.add_row(way, f"{size:,}", *means, f"{max(cell['peak_mib'] for cell in same):.0f}")
    console = Console()
    console.print(table)
    for name, each in figures.items():
        console.print(f"{name}: {each['value']} {each['unit']} ({each['low']} to {each['high']})")


def _measured(folder: Path, studio: studio_server.Studio, size: int, repetition: int) -> list[Row]:
    """Push and pull, ours and bare, with a fresh store and fresh projects."""
    folder.mkdir()
    (folder / "config.toml").write_text(
        f'[run]\nname = "{RUN}"\n[task]\nanswer = "number"\n[budget]\nminutes = 1e9\n'
        f'[review]\nurl = "{studio.url}"\nproject = "b {size} {repetition}"\n',
        encoding="utf-8",
    )
    _fill(_project(folder), size)
    os.environ |= {"LABEL_STUDIO_API_KEY": studio.token, "BENCH_STUDIO": studio.url}
    tasks = _ready(_project(folder))
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    order = ["push", "bare push"] if repetition % 2 else ["bare push", "push"]
    cells = [_apart(way, folder, size) for way in order]
    _judge(folder, tasks)
    order = ["pull", "bare pull"] if repetition % 2 else ["bare pull", "pull"]
    return cells + [_apart(way, folder, size) for way in order]


def _apart(way: str, folder: Path, size: int) -> Row:
    """One way in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.review", "--one", way, str(folder)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    assert row["done"] == size, row
    return {"way": way, "size": size} | row


def _project(folder: Path) -> Project:
    return Project(folder / "config.toml", RichProgress(Console()))


def _fill(project: Project, size: int) -> None:
    """A round in review with so many rationales."""
    store = project.store
    keys = [f"item-{number}" for number in range(size)]
    items.add(
        store, [Item(key=key, question=f"{key}: {'what ' * 60}?", split=Split.POOL, text_hash=key) for key in keys]
    )
    Purse(store, RUN).open(usd=0, minutes=project.minutes_limit)
    opened = rounds.open_round(store, RUN, project.config.model_dump(mode="json"))
    number = opened.id or 0
    rounds.keep_scores(store, [Score(round_id=number, item_key=key, chunk=0, score=0.5) for key in keys])
    queries = [Query(round_id=number, item_key=key, position=at, arm="random") for at, key in enumerate(keys)]
    opened = rounds.enter(store, opened, Stage.REVIEW, queries)
    answer = Answer(kind=AnswerKind.NUMBER, value="5").canonical
    steps = [f"step {at}: {'so it is ' * 30}" for at in range(4)]
    rows = [
        Rationale(item_key=key, round_id=number, author=Author.TEACHER, steps=steps, answer=answer, stated="5")
        for key in keys
    ]
    with store.writing() as session:
        session.add_all(rows)
    rationales.keep_checked(store, [Risk(rationale_id=row.id or 0, value=0.5, check_set="1") for row in rows], [])
    wanted = [reviews.Wanted(row, "risk", f"{RUN}/1/{row.item_key}") for row in rows]
    reviews.open_tasks(store, RUN, number, wanted, 1_000_000)


def _round(project: Project) -> Round:
    current = rounds.current(project.store, RUN)
    assert current is not None
    return current


def _ready(project: Project) -> list[Row]:
    """The tasks as the import takes them."""
    return [
        {
            "data": dict(made.data),
            "predictions": [{"model_version": "teacher", "score": made.score, "result": made.prediction}],
        }
        for task, rationale, item in reviews.pending(project.store, _round(project).id or 0)
        for made in [board_task(task, rationale, item, Details(risk=0.5), project.config.task)]
    ]


def _judge(folder: Path, tasks: list[Row]) -> None:
    """Let the pushed tasks be judged: a project in their place whose tasks come with annotations."""
    project, http = _project(folder), _http()
    board = project.board()
    assert http.delete(f"/api/projects/{board.project()}/").status_code == httpx.codes.NO_CONTENT
    number, accept = board.project(), result(VerdictKind.ACCEPT)
    for start in range(0, len(tasks), PIECE):
        judged = [
            each | {"annotations": [{"result": accept, "lead_time": 30.0}]} for each in tasks[start : start + PIECE]
        ]
        assert http.post(f"/api/projects/{number}/import", json=judged).status_code == httpx.codes.CREATED
    (folder / "project").write_text(number, encoding="utf-8")


# --- ways: each in its own process, in a folder with config.toml, the store and tasks.json ---------------------------


def _push(folder: Path) -> Row:
    project = _project(folder)
    desk, number = project.desk(), _round(project).id or 0
    project.board()  # loads the SDK
    label_studio_import.LONGEST_REST = 0.0
    before = _Clock()
    desk.push(reviews.pending(project.store, number))
    spent = before.spent()
    tasks = reviews.tasks(project.store, number)
    return spent | {"done": sum(task.pushed_at is not None for task in tasks)}


def _pull(folder: Path) -> Row:
    project = _project(folder)
    desk = project.desk()
    project.board()  # loads the SDK
    before = _Clock()
    return {"done": desk.pull()} | before.spent()


def _bare_push(folder: Path) -> Row:
    tasks, http = json.loads((folder / "tasks.json").read_text(encoding="utf-8")), _http()
    config = http.get(f"/api/projects/{_project(folder).board().project()}/").json()["label_config"]
    done, before = 0, _Clock()
    made = http.post("/api/projects/", json={"title": "bare", "label_config": config}).json()["id"]
    for start in range(0, len(tasks), PIECE):
        path = f"/api/projects/{made}/import?return_task_ids=true"
        done += http.post(path, json=tasks[start : start + PIECE]).json()["task_count"]
    return {"done": done} | before.spent()


def _bare_pull(folder: Path) -> Row:
    http, number = _http(), (folder / "project").read_text(encoding="utf-8")
    asked = {"project": number, "fields": "all", "include": ANNOTATION, "page_size": PIECE}
    done, page, before = 0, 1, _Clock()
    while (reply := http.get("/api/tasks", params=asked | {"page": page})).status_code == httpx.codes.OK:
        done += sum(bool(each["annotations"]) for each in reply.json()["tasks"])
        page += 1
    return {"done": done} | before.spent()


class _Clock:
    """What a way takes."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def spent(self) -> Row:
        """Seconds since it was made, and the largest size of the process so far (`getrusage` has the parent's too)."""
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return {
            "seconds": time.perf_counter() - self._clock,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_mib": int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**10,
        }


def _http() -> httpx.Client:
    """The bare API of the server that the environment names."""
    headers = {"Authorization": f"Token {os.environ['LABEL_STUDIO_API_KEY']}"}
    return httpx.Client(base_url=os.environ["BENCH_STUDIO"], headers=headers, trust_env=False, timeout=600.0)


WAYS = {"push": _push, "pull": _pull, "bare push": _bare_push, "bare pull": _bare_pull}

if __name__ == "__main__":
    main()
