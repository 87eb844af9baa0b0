"""Writing a dataset in every form, beside a bare cursor that writes the same text in the same form.

The store holds decided rows, a twentieth of them corrected by a person. The floor reads items, rationales and decisions
in force with one query through the driver's own cursor, and hands each row to the plain writer of the form (lines by
orjson, pyarrow, the csv module). It leaves out earlier versions of a rationale, what reviewers said and under which
pseudonym, addresses and characters that may not be written, texts that stand there twice or in the holdout, the
version's hash, filters, figures, card and checksums; in forms for training it writes its plain row instead of messages,
and no second file with where they come from. Each way runs in a process of its own, so that its peak memory is its own.

The dashboard's pages are looked at through the web application, without a socket: once while nothing is kept, and again
as they are shown after the server's start. Of each figure the slowest page counts.

Run as `python -m benchmarks.export --json FILE [--data PATH] [--quick] [--seeds N]`.
"""

import argparse
import csv
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert
from starlette.testclient import TestClient

from benchmarks.kept import ROOT, figure, ratio, write
from connectors import site
from connectors.dashboard import Dashboard
from connectors.exports import Wanted, export
from connectors.formats import FORMATS, ROW_GROUP
from connectors.report_page import page
from connectors.views import PAGES
from loop.answer import Answer, AnswerKind
from loop.config import Config
from loop.records import Author, Decision, DecisionKind, Item, Prompt, Rationale, Reply, Risk, Split, Verdict
from loop.records import VerdictKind as Kind
from loop.store import rounds
from loop.store.database import Store, now

SIZES = (10_000, 100_000)
EDITED = 20
"""One of so many rows is corrected by a person."""
HELD_OUT = 200
LOOKS = 5
RUN = "main"
SOURCES = [
    "benchmarks/export.py",
    *(f"connectors/{name}.py" for name in ("card", "conditions", "croissant", "exports", "formats", "gate")),
    *(f"connectors/{name}.py" for name in ("export_rows", "states", "dashboard", "views", "status", "report_page")),
    *(
        f"loop/{name}.py"
        for name in ("resemblance", "store/counting", "store/dataset", "store/reviews", "store/versions")
    ),
]
Row = dict[str, Any]


def main() -> None:
    """Measure each form, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, help="not used: the rows are made up")
    parser.add_argument("--quick", action="store_true", help="10,000 rows only")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions of each way")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FORM", "DATABASE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(_one(*chosen.one)))
        return
    sizes = SIZES[:1] if chosen.quick else SIZES
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            database = Path(folder) / f"{size}.db"
            _fill(database, size)
            cells += [
                _apart(way, form, database) | {"size": size}
                for _ in range(chosen.seeds)
                for form in FORMATS
                for way in ("ours", "floor")
            ]
        seen = [_apart("pages", "", database) for _ in range(chosen.seeds)]
    figures = _figures(cells, sizes) | _seen(seen)
    settings = {
        "sizes": list(sizes),
        "edited": 1 / EDITED,
        "repetitions": chosen.seeds,
        "orjson": version("orjson"),
        "pyarrow": version("pyarrow"),
        "time": "CPU seconds of the process, imports left out",
    }
    if chosen.json:
        write(chosen.json, "export", settings=settings, figures=figures, sources=SOURCES, cells=cells + seen)
    _show(cells, figures)


def _figures(cells: list[Row], sizes: tuple[int, ...]) -> dict[str, Any]:
    def found(way: str, form: str, size: int, name: str) -> list[float]:
        return [each[name] for each in cells if (each["way"], each["form"], each["size"]) == (way, form, size)]

    figures = {
        f"{form}_ratio": ratio(
            found("ours", form, sizes[-1], "cpu_seconds"),
            found("floor", form, sizes[-1], "cpu_seconds"),
            "of the floor",
        )
        for form in FORMATS
    }
    for size in sizes:
        peak = max(max(found("ours", form, size, "peak_mib")) for form in FORMATS)
        figures[f"peak_mib_{size}"] = figure(peak, peak, peak, "MiB")
    return figures


def _seen(cells: list[Row]) -> dict[str, Any]:
    """How long the slowest page takes, over repetitions, and how large the report is."""
    found = {}
    for name in ("first_look", "look"):
        slowest = [max(each[name].values()) for each in cells]
        found[f"page_{name}_ms"] = figure(sum(slowest) / len(slowest), min(slowest), max(slowest), "ms")
    size = cells[0]["report_mib"]
    return found | {"report_mib": figure(size, size, size, "MiB")}


def _show(cells: list[Row], figures: dict[str, Any]) -> None:
    table = Table("form", "rows", "way", "CPU seconds", "peak MiB", box=None)
    for cell in sorted(cells, key=lambda each: (each["size"], each["form"], each["way"])):
        numbers = (f"{cell['cpu_seconds']:.2f}", f"{cell['peak_mib']:.0f}")
        table.add_row(cell["form"], f"{cell['size']:,}", cell["way"], *numbers)
    console = Console()
    console.print(table)
    for name, each in figures.items():
        console.print(f"{name}: {each['value']} {each['unit']} ({each['low']} to {each['high']})")


def _apart(way: str, form: str, database: Path) -> Row:
    """One way in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.export", "--one", way, form, str(database)]
    alone = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1", "PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT, env=alone)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def _one(way: str, form: str, database: str) -> Row:
    if way == "pages":
        return _pages(Store(f"sqlite:///{database}"))
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{database}")
        started = time.process_time()
        if way == "ours":
            export(store, RUN, Path(folder) / "out", Wanted(form))
        else:
            PLAIN.get(form, _plain_lines)(_bare(database), Path(folder) / "out")
        seconds = time.process_time() - started
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 2**10  # getrusage would start at the parent's
    return {"way": way, "form": form, "cpu_seconds": round(seconds, 3), "peak_mib": round(peak, 1)}


def _pages(store: Store) -> Row:
    """Milliseconds of each page, anew and as it is kept, and the size of the report."""
    names = [*(each.name for each in PAGES), "items", "items?text=word5", "item?key=q0000020"]
    first, look = {}, {}
    for name in names:
        first[name] = _looked(Dashboard(store, Config()), name)
    kept = Dashboard(store, Config())
    kept.look_ahead()
    for name in names:
        look[name] = median(_looked(kept, name) for _ in range(LOOKS))
    report = page(store, RUN, Config())
    return {"way": "pages", "first_look": first, "look": look, "report_mib": round(len(report.encode()) / 2**20, 3)}


def _looked(dashboard: Dashboard, name: str) -> float:
    client = TestClient(site.application(dashboard, None), base_url="http://127.0.0.1")
    client.get("/static/dashboard.css").raise_for_status()
    started = time.perf_counter()
    client.get(f"/runs/{RUN}/{name}".removesuffix("/overview")).raise_for_status()
    return round(1000 * (time.perf_counter() - started), 1)


# --- the floor --------------------------------------------------------------------------------------------------------

QUERY = """
select item.key, question, context, choices, domain, source, rationale.steps, rationale.answer, kind, reason, certified,
       author, round.number, risk.value, reply.model, reply.prompt_hash
from decision join item on item.key = decision.item_key join rationale on rationale.id = decision.rationale_id
join round on round.id = decision.round_id left join risk on risk.rationale_id = rationale.id
left join reply on reply.id = rationale.reply_id
where decision.id in (select max(id) from decision where run = 'main' group by item_key) and kind in ('GOLD', 'SILVER')
order by item.key
"""
NAMES = (
    "key", "question", "context", "choices", "domain", "source", "steps", "answer", "decision", "reason", "certified",
    "author", "round", "risk", "teacher_model", "prompt_hash",
)  # fmt: skip


def _bare(database: str) -> Iterator[Row]:
    """The rows through the driver's cursor, lists and answers read."""
    with sqlite3.connect(database) as connection:
        for values in connection.execute(QUERY):
            row = dict(zip(NAMES, values, strict=True))
            for name in ("choices", "steps", "answer"):
                row[name] = json.loads(row[name])
            row["answer"] = row["answer"]["value"]
            yield row


def _plain_lines(rows: Iterator[Row], path: Path) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _plain_table(rows: Iterator[Row], path: Path) -> None:
    piece = list(islice(rows, ROW_GROUP))
    first = pa.RecordBatch.from_pylist(piece)
    with pq.ParquetWriter(path, first.schema) as writer:
        while piece:
            writer.write_batch(pa.RecordBatch.from_pylist(piece, first.schema))
            piece = list(islice(rows, ROW_GROUP))


def _plain_csv(rows: Iterator[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(row.values() for row in rows)


PLAIN: dict[str, Callable[[Iterator[Row], Path], None]] = {
    "parquet": _plain_table,
    "hf": _plain_table,
    "croissant": _plain_table,
    "csv": _plain_csv,
}


# --- the store --------------------------------------------------------------------------------------------------------


def _fill(database: Path, size: int) -> None:
    """A closed round with so many decided rows."""
    store = Store(f"sqlite:///{database}")
    store.migrate()
    round_id = rounds.open_round(store, RUN, Config().model_dump(mode="json")).id or 0
    words = [f"word{number}" for number in range(997)]
    answer, moment = Answer(kind=AnswerKind.NUMBER, value="42").canonical, now()
    tables: dict[Any, list[Row]] = {each: [] for each in (Item, Prompt, Reply, Rationale, Risk, Verdict, Decision)}
    for place in range(size + HELD_OUT):
        lap = place // 997
        text = " ".join(words[(place * (at + 3) + at * at + lap * (3 * at + 1)) % 997] for at in range(40))
        held, hashed = place >= size, f"{place * 7919:064x}"[::-1]
        tables[Item].append(
            {
                "key": f"q{place:07}", "question": f"{text} {place}?", "context": "", "choices": [],
                "domain": "made up", "split": Split.HOLDOUT if held else Split.POOL, "text_hash": hashed,
                "source": f"made.jsonl:{place}", "answer": answer if held else None, "steps": [],
            }
        )  # fmt: skip
        if not held:
            _decide(tables, place, round_id, answer, moment, text)
    with store.writing() as session:
        session.execute(insert(Prompt), [{"hash": "p" * 64, "body": {}}])
        tables.pop(Prompt)
        for table, rows in tables.items():
            session.execute(insert(table), rows)
    store.close()


def _decide(tables: dict[Any, list[Row]], place: int, round_id: int, answer: str, moment: Any, text: str) -> None:
    number, key, edited = 2 * place + 1, f"q{place:07}", place % EDITED == 0
    steps = [text[start : start + 60] for start in (0, 60, 120)]
    tables[Reply].append(
        {
            "id": number, "round_id": round_id, "item_key": key, "prompt_hash": "p" * 64, "model": "teacher",
            "text": text, "finish_reason": "stop", "input_tokens": 100, "output_tokens": 60, "created_at": moment,
        }
    )  # fmt: skip
    common = {"item_key": key, "round_id": round_id, "answer": answer, "planted": "", "stated": "42"}
    tables[Rationale].append(
        common | {"id": number, "author": Author.TEACHER, "steps": steps, "reply_id": number, "supersedes": None}
    )
    tables[Risk].append({"rationale_id": number, "value": 0.1, "check_set": "checks", "evidence": {}})
    if edited:
        tables[Rationale].append(
            common
            | {"id": number + 1, "author": Author.HUMAN, "steps": steps[:2], "reply_id": None, "supersedes": number}
        )
        tables[Verdict].append(
            {
                "board": "made up", "project": "1", "annotation": str(number), "updated_at": "2026-01-01T12:00:00Z",
                "rationale_id": number, "slot": 0, "reviewer": f"reviewer{place % 3}@example.org", "kind": Kind.EDIT,
                "marks": {"0": "wrong"}, "steps": steps[:2], "answer": answer, "reasons": [], "seconds": 30.0,
                "simulated": True, "raw": {}, "pulled_at": moment,
            }
        )  # fmt: skip
    tables[Decision].append(
        {
            "run": RUN, "item_key": key, "round_id": round_id, "rationale_id": number + edited, "certified": False,
            "kind": DecisionKind.GOLD if edited else DecisionKind.SILVER, "reason": "made up", "decided_at": moment,
            "planted": "", "version": 1,
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
