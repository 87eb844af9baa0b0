"""What a local teacher's logits are worth: the white-box objectives beside plain cross-entropy, for their CPU seconds.

The teacher is SmolLM2-135M, fine-tuned (LoRA) on 240 e-SNLI pairs with what PaLM-540B said of them; the student is four
of its thirty layers, and learns some of the same pairs anew with all its weights. `cross_entropy` learns the texts
alone, `cross_entropy.longer` in so many more epochs that it takes about as long as the dearest objective. Accuracy is
that of direct answers against gold labels; the held-out loss is that of PaLM's texts on pairs with other premises.

A grid of cells (objective, seed), each stored when done: run it again with the same file and it goes on. The teacher
and the untrained student are made once and kept in the user's cache.
Run as `python -m benchmarks.objectives --json FILE [--methods ...] [--seeds N] [--jobs N] [--quick]`.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from benchmarks.cells import run, stored
from benchmarks.efficiency import WORLDS
from benchmarks.kept import ROOT, code_hash, figure, ratio, write
from connectors.progress import RichProgress
from connectors.wiring import cache_folder
from loop.config import StudentConfig, TaskConfig
from loop.evaluation import grade
from loop.interval import of_mean
from loop.ports import Example
from loop.records import Item
from loop.student import distill_step_by_step
from loop.student.decoder import Decoder
from loop.student.trainer import DecoderTrainer
from loop.student.white_box import OBJECTIVES

TAUGHT, ROWS, HELD_OUT = 240, 64, 60
"""Pairs that the teacher learns, those of them that a student learns, and those whose texts it is measured by."""
LAYERS = (0, 10, 19, 29)
"""Those of the teacher that the student begins with."""
TEACHER = {"epochs": 2, "learning_rate": 5e-4, "answers_by": "answer", "max_new_tokens": 32}
STUDENT = {
    "epochs": 2,
    "learning_rate": 3e-4,
    "lora_rank": 0,
    "dtype": "float32",
    "answers_by": "answer",
    "max_new_tokens": 32,
}
PLAIN, LONGER, TIMES = "cross_entropy", "cross_entropy.longer", 3
METHODS = (PLAIN, LONGER, *OBJECTIVES)
SOURCES = [
    "benchmarks/objectives.py",
    *(
        f"loop/student/{name}.py"
        for name in (
            *("checkpoint", "decoder", "distill_step_by_step", "fitting", "lora", "prompts", "reading", "trainer"),
            *("training", "tree", "weighing", "white_box", "writer"),
        )
    ),
    *(
        f"loop/student/objectives/{name}.py"
        for name in ("comparing", "divergences", "gkd", "mgsr", "minillm", "online_kd")
    ),
]
CODE = code_hash(SOURCES)
"""Of the code that this process loaded."""
QUIET = RichProgress(Console(quiet=True))
Row = dict[str, Any]


@dataclass(frozen=True)
class World:
    """What is learned, and what is looked at."""

    task: TaskConfig
    taught: Sequence[Example]
    held_out: Sequence[Example]
    dev: Sequence[Item]


def main() -> None:
    """Run the cells that are missing, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="two objectives beside cross-entropy, two seeds")
    chosen = parser.parse_args()
    methods = (PLAIN, "forward_kl", "gkd") if chosen.quick else chosen.methods
    wanted = [(method, seed) for seed in range(2 if chosen.quick else chosen.seeds) for method in methods]
    cells, models = stored(chosen.json), a_family(chosen.data)
    one, keep = partial(run_cell, chosen.data, models), partial(_write, chosen.json, models)
    run(wanted, ("method", "seed"), cells, one, jobs=chosen.jobs, write=keep)
    _show(cells)


def world(data: Path) -> World:
    """The same pairs for all; no premise stands on both sides."""
    made = WORLDS["esnli_palm.smollm2"][0](data)
    order = random.Random("objectives").sample(list(made.teacher), len(made.teacher))
    held_out = order[:HELD_OUT]
    premises = {_premise(each) for each in held_out}
    taught = [each for each in order[HELD_OUT:] if _premise(each) not in premises][:TAUGHT]
    return World(made.task, taught, held_out, made.dev)


def a_family(data: Path) -> Path:
    """A folder with the teacher and the untrained student; made where it is not there, or was by other code."""
    made_of = json.dumps([TAUGHT, HELD_OUT, TEACHER, LAYERS, CODE])
    folder = cache_folder() / "benchmarks" / "objectives"
    if (folder / "facts.json").exists() and json.loads((folder / "facts.json").read_text())["made_of"] == made_of:
        return folder
    _one_thread()
    started, made = time.process_time(), world(data)
    trainer = DecoderTrainer(StudentConfig.model_validate(TEACHER), made.task, cache_folder())
    with tempfile.TemporaryDirectory() as scratch:
        trainer.train(made.taught, seed=0, folder=Path(scratch) / "adapters", progress=RichProgress(Console()))
        teacher = trainer.student(Path(scratch) / "adapters")
    measured = _measured(teacher, made)
    teacher.model.save_pretrained(folder / "teacher")
    teacher.tokenizer.save_pretrained(folder / "teacher")
    _cut(folder / "teacher", folder / "student")
    seconds = round(time.process_time() - started)
    (folder / "facts.json").write_text(json.dumps({"made_of": made_of, "cpu_seconds": seconds, **measured}))
    return folder


def run_cell(data: Path, models: Path, method: str, seed: int) -> Row:
    """How good a student is, and the CPU seconds that its training took."""
    _one_thread()
    made = world(data)
    settings: Row = {**STUDENT, "model": str(models / "student")}
    if method in OBJECTIVES:
        settings["white_box"] = {"teacher": str(models / "teacher"), "objective": method}
    if method == LONGER:
        settings["epochs"] *= TIMES
    trainer = DecoderTrainer(StudentConfig.model_validate(settings), made.task, cache_folder())
    some = random.Random(f"rows/{seed}").sample(list(made.taught), ROWS)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        trainer.train(some, seed=seed, folder=Path(scratch) / "s", progress=QUIET)
        seconds = round(time.process_time() - started, 1)
        student = trainer.student(Path(scratch) / "s")
    return {"method": method, "seed": seed, **_measured(student, made), "cpu_seconds": seconds, "code": CODE}


def _measured(student: Decoder, made: World) -> Row:
    """Accuracy of direct answers, and the loss of texts that it has not seen, in nats a token."""
    right = grade(made.dev, student.predict(made.dev))
    tasks = distill_step_by_step.tasks(student, made.held_out, student.student)
    losses = []
    with torch.no_grad():
        for start in range(0, HELD_OUT, 10):
            batch = range(start, start + 10)
            parts = distill_step_by_step.losses(
                student.model, tasks, batch, lambda *of: distill_step_by_step.together(*of, student.pad)
            )
            losses.append(sum(each.item() for each in parts))
    return {"accuracy": sum(right) / len(right), "loss": float(np.mean(losses))}


def _cut(teacher: Path, student: Path) -> None:
    """Save some layers of a model as one of its own."""
    whole = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32)
    config = whole.config
    places = {f"model.layers.{old}.": f"model.layers.{new}." for new, old in enumerate(LAYERS)}
    kept = {}
    for name, weight in whole.state_dict().items():
        begins = next((old for old in places if name.startswith(old)), "")
        if begins or "layers." not in name:
            kept[name.replace(begins, places.get(begins, ""), 1) if begins else name] = weight
    config.num_hidden_layers = len(LAYERS)
    cut = LlamaForCausalLM(config)
    cut.load_state_dict(kept)
    cut.save_pretrained(student)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(student)


def _premise(example: Example) -> str:
    return example.item.question.split("\n")[0]


def _one_thread() -> None:
    """CPU seconds that do not hang on how many cells run side by side."""
    torch.set_num_threads(1)
    disable_progress_bar()


# --- figures --------------------------------------------------------------------------------------------------------


def figures_of(cells: Sequence[Row]) -> Row:
    """What each method gains over cross-entropy for as many epochs, and how many times its CPU seconds it takes."""
    by_method: dict[str, dict[int, Row]] = {}
    for cell in cells:
        by_method.setdefault(cell["method"], {})[cell["seed"]] = cell
    found: Row = {}
    for method in METHODS[1:]:
        seeds = sorted(by_method.get(method, {}).keys() & by_method.get(PLAIN, {}).keys())
        if len(seeds) < 2:
            continue
        own, plain = ([by_method[name][seed] for seed in seeds] for name in (method, PLAIN))
        found[f"accuracy_gain.{method}"] = _gain(own, plain, "accuracy", "accuracy")
        found[f"loss_change.{method}"] = _gain(own, plain, "loss", "nats a token")
        seconds = ([cell["cpu_seconds"] for cell in some] for some in (own, plain))
        found[f"cpu_ratio.{method}"] = ratio(*seconds)
    return found


def _gain(own: Sequence[Row], plain: Sequence[Row], name: str, unit: str) -> Row:
    """The mean difference over seeds; Student's interval."""
    apart = [one[name] - other[name] for one, other in zip(own, plain, strict=True)]
    return figure(float(np.mean(apart)), *of_mean(apart), unit)


def _write(file: Path, models: Path, cells: Sequence[Row]) -> None:
    facts = json.loads((models / "facts.json").read_text())
    older = sorted({cell["method"] for cell in cells if cell["code"] != CODE})
    settings = {
        "teacher_rows": TAUGHT,
        "rows": ROWS,
        "student": STUDENT,
        "layers": LAYERS,
        "seeds": len({cell["seed"] for cell in cells}),
        "teacher_accuracy": round(facts["accuracy"], 3),
        "teacher_loss": round(facts["loss"], 3),
        "teacher_cpu_seconds": facts["cpu_seconds"],
        "interval": "95 %, Student's, paired over seeds; of a ratio by bootstrap",
        "passes": "cross-entropy reads both tasks in one, an objective each in its own; it shows in CPU seconds",
        "methods_of_older_code": older,
        "notes": [_said(method, some) for method, some in _by_method(cells).items()],
    }
    write(file, "objectives", settings=settings, figures=figures_of(cells), sources=SOURCES, cells=list(cells))


def _by_method(cells: Sequence[Row]) -> Mapping[str, list[Row]]:
    found = {method: [cell for cell in cells if cell["method"] == method] for method in METHODS}
    return {method: some for method, some in found.items() if some}


def _said(method: str, some: Sequence[Row]) -> str:
    accuracy, loss, seconds = (np.mean([cell[name] for cell in some]) for name in ("accuracy", "loss", "cpu_seconds"))
    return f"{method}: accuracy {accuracy:.3f}, held-out loss {loss:.3f}, {seconds:.0f} CPU seconds, {len(some)} seeds"


def _show(cells: Sequence[Row]) -> None:
    """Print a table."""
    table = Table("method", "seeds", "accuracy", "held-out loss", "CPU seconds", box=None)
    for method, some in _by_method(cells).items():
        means = [np.mean([cell[name] for cell in some]) for name in ("accuracy", "loss", "cpu_seconds")]
        table.add_row(method, str(len(some)), f"{means[0]:.3f}", f"{means[1]:.3f}", f"{means[2]:.0f}")
    console = Console()
    console.print(table)
    for name, each in figures_of(cells).items():
        console.print(f"{name}: {each['value']} {each['unit']} ({each['low']} to {each['high']})")


if __name__ == "__main__":
    main()
