"""Two campaigns on real questions with real teachers' rationales, through the command a user would type.

The teachers' replies are recordings; reviewers are simulated with a known error rate and correct from the data's gold
answers and human explanations, which the loop never sees. Run as `python -m benchmarks.real [--data PATH]`.
"""

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from connectors.history import history
from connectors.progress import RichProgress
from connectors.wiring import Project

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
PRECEPTOR = str(Path(sys.executable).parent / "preceptor")
ESNLI_INSTRUCTIONS = "Does the hypothesis follow from the premise?"
ESNLI_LABELS = {
    "entailment": "the hypothesis follows from the premise",
    "neutral": "the hypothesis may be true or false",
    "contradiction": "the hypothesis cannot be true if the premise is",
}
SVAMP_TEACHERS = ("PaLM-540B", "text-davinci-002", "gpt-3.5-turbo")

CONFIG = """\
[run]
name = "{name}"
folder = "."
database = "sqlite:///{name}/preceptor.db"
rounds = 2

[task]
{task}

[student]
model = "smollm2-135m-instruct"
{student}

[query]
{query}

[teacher]
recorded = "{name}/world/recorded.jsonl"
{teacher}
input_price = 0.5
output_price = 1.5

[budget]
usd = 5.0
minutes = 300

[review]
board = "label_studio"
{review}

[simulated_reviewer]
truth = "{name}/world/truth.jsonl"
error_rate = 0.05
"""


def esnli(data: Path) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """Natural-language inference with PaLM-540B's rationales: 300 pool, 200 holdout."""
    rows = list(_rows(data / "rationales" / "esnli_palm.jsonl.gz"))
    pool = [row for row in rows if row["split"] == "train"][:300]
    holdout = [row for row in rows if row["split"] == "dev"][:200]
    world = {
        "pool": [{"key": row["id"], "question": row["question"]} for row in pool],
        "holdout": [{"key": row["id"], "question": row["question"], "answer": row["gold"]} for row in holdout],
        "recorded": [recording for row in pool for recording in _recordings(row, ("PaLM-540B",))],
        "truth": [_truth(row, row["human_rationale"][:1], row["teacher"][:1]) for row in pool],
    }
    labels = ", ".join(f'{label} = "{text}"' for label, text in ESNLI_LABELS.items())
    return world, {
        "task": f'instructions = "{ESNLI_INSTRUCTIONS}"\nanswer = "label"\nlabels = {{ {labels} }}',
        "student": 'epochs = 4\nlearning_rate = 2e-4\nmax_new_tokens = 48\nanswers_by = "answer"',
        "query": "batch_size = 80\ncandidates = 2\nsamples = 4",
        "teacher": 'model = "PaLM-540B"\nsamples = 1',
        "review": "audit_share = 0.1\nrisk_threshold = 0.25",
    }


def svamp(data: Path) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """Arithmetic word problems with the rationales of three teachers: 200 pool, 100 holdout."""
    rows = list(_rows(data / "rationales" / "svamp.jsonl.gz"))
    pool = [row for row in rows if row["split"] == "train"][:200]
    holdout = [row for row in rows if row["split"] == "dev"][:100]
    world = {
        "pool": [{"key": row["id"], "question": row["question"]} for row in pool],
        "holdout": [{"key": row["id"], "question": row["question"], "answer": row["gold"]} for row in holdout],
        "recorded": [recording for row in pool for recording in _recordings(row, SVAMP_TEACHERS)],
        "truth": [_truth(row, _equation(row), _of(row, SVAMP_TEACHERS[:1])) for row in pool],
    }
    return world, {
        "task": 'answer = "number"',
        "student": "epochs = 3\nlearning_rate = 1e-3\nmax_new_tokens = 96",
        "query": "batch_size = 60\ncandidates = 2\nsamples = 4",
        "teacher": 'model = "panel"\nsamples = 3\ntemperature = 0.7',
        "review": "audit_share = 0.1\nrisk_threshold = 0.3",
    }


def _rows(file: Path) -> Iterator[Row]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def _of(row: Row, models: Sequence[str]) -> list[Row]:
    """The row's replies by these models, in their order."""
    by_model = {reply["model"]: reply for reply in row["teacher"]}
    return [by_model[model] for model in models]


def _recordings(row: Row, models: Sequence[str]) -> list[Row]:
    """Recorded completions; several models answer as successive samples of one panel."""
    asked = models[0] if len(models) == 1 else "panel"
    return [
        {
            "key": row["id"],
            "question": row["question"],
            "model": asked,
            "served_by": reply["model"],
            "steps": [reply["rationale"]],
            "answer": str(reply["answer"]),
            "sample": number,
        }
        for number, reply in enumerate(_of(row, models))
    ]


def _truth(row: Row, steps: Sequence[str], replies: Sequence[Row]) -> Row:
    """What the simulated reviewer knows: gold answer, an explanation, and which rationale is wrong."""
    wrong = [reply["rationale"] for reply in replies if not reply["correct"]]
    return {"key": row["id"], "answer": row["gold"], "steps": list(steps), "wrong": wrong}


def _equation(row: Row) -> list[str]:
    """A one-step explanation from the gold equation."""
    equation = (row.get("meta") or {}).get("equation")
    return [f"{str(equation).strip('() ')} = {row['gold']}" if equation else f"The answer is {row['gold']}."]


def _command(config: Path, *words: str) -> str:
    """Run `preceptor` as a user would; its output."""
    done = subprocess.run(
        [PRECEPTOR, *words, "--config", str(config)], check=False, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"preceptor {' '.join(words)} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def campaign(name: str, world: dict[str, list[Row]], settings: dict[str, str], runs: Path) -> Row:
    """Write one campaign's files, run it to its end, and say what happened to the wrong rationales."""
    folder = runs / name / "world"
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in world.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text(text, encoding="utf-8")
    config = runs / f"{name}.toml"
    config.write_text(CONFIG.format(name=name, **settings), encoding="utf-8")
    started = time.monotonic()
    _command(config, "ingest", str(folder / "holdout.jsonl"), "--split", "holdout")
    _command(config, "ingest", str(folder / "pool.jsonl"), "--split", "pool")
    subprocess.run([PRECEPTOR, "run", "--wait", "--config", str(config)], check=True, cwd=ROOT)
    _command(config, "report")
    _command(config, "export", str(runs / name / "export"))
    status = json.loads(_command(config, "status", "--json"))
    (runs / name / "status.json").write_text(json.dumps(status, indent=1), encoding="utf-8")
    wrong = {row["key"] for row in world["truth"] if row["wrong"]}
    return {
        "name": name,
        "seconds": time.monotonic() - started,
        "status": status,
        **_fate(config, wrong, world["pool"]),
    }


def _fate(config: Path, wrong: set[str], pool: Sequence[Row]) -> Row:
    """How many wrong teacher rationales were asked, flagged, reviewed, and slipped through."""
    counts = {"asked": 0, "wrong": 0, "flagged": 0, "reviewed": 0, "slipped": 0}
    project = Project(config, RichProgress(Console(quiet=True)))
    for row in pool:
        past = history(project.store, project.config.run.name, row["key"])
        if not past["rationales"]:
            continue
        counts["asked"] += 1
        if row["key"] not in wrong:
            continue
        counts["wrong"] += 1
        counts["flagged"] += bool(past["flags"])
        counts["reviewed"] += bool(past["verdicts"])
        newest: Row = past["decisions"][-1] if past["decisions"] else {}
        taken = {each["id"]: each for each in past["rationales"]}.get(newest.get("rationale_id"), {})
        counts["slipped"] += newest.get("kind") in ("gold", "silver") and taken.get("author") == "teacher"
    return counts


def main() -> None:
    """Run both campaigns and print one line about each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", choices=("esnli", "svamp"))
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        raise SystemExit(f"{chosen.data}: no such folder; name the real data with --data PATH")
    runs = ROOT / "runs"
    runs.mkdir(exist_ok=True)
    started = time.monotonic()
    lines = []
    for name, world in (("esnli", esnli), ("svamp", svamp)):
        if chosen.only in (None, name):
            rows, settings = world(chosen.data)
            config = runs / f"{name}.toml"
            config.parent.mkdir(exist_ok=True)
            config.write_text(CONFIG.format(name=name, **settings), encoding="utf-8")
            _command(config, "review", "up", "--port", "0")
            try:
                lines.append(_summary(campaign(name, rows, settings, runs)))
            finally:
                _command(config, "review", "down")
    print("; ".join([*lines, f"{time.monotonic() - started:.0f} s in all"]))


def _summary(result: Row) -> str:
    rounds = result["status"]["rounds"]
    accuracies = " -> ".join(f"{each['student']['accuracy']:.2f}" for each in rounds if each.get("student"))
    return (
        f"{result['name']} (simulated reviewer): test accuracy {accuracies}, {result['asked']} asked, "
        f"{result['wrong']} wrong: {result['flagged']} flagged, {result['reviewed']} reviewed, "
        f"{result['slipped']} slipped through; {result['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
