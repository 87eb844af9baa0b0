"""Training a causal student on two tasks, beside `transformers.Trainer` with the same rationales.

SmolLM2-135M learns e-SNLI with PaLM-540B's rationales, one epoch: load, tokenize, train, save. A token is one of the
two tasks' texts (question and target, each text alone, no padding), however a way reads it, so all ways have as many.
Each runs in a process of its own on one thread, and is compared by its CPU seconds.

*Trainer*: its defaults (all weights, float32, batches of 8, no order by length) on the texts of both tasks as rows, as
its examples have it. *Alike*: number format, adapters, batch size and rate are ours, the loss of both tasks is mixed as
by the authors of Distilling Step-by-Step in a `Trainer` of theirs, and what makes a `Trainer` quick is set: rows of
like length together (`group_by_length`), and plain attention (`eager`), which is faster here than the fused kernel.
Order, clipping and schedule are its own. Ours and alike must begin at the same loss, learn, and end at about the same
loss on rationales that neither learned, or the run fails.

`limit_share` is what the products that training needs take at the speed of a large product in this run, as a share of
what all of it takes, loading and saving too. Run as
`python -m benchmarks.training --json FILE [--data PATH] [--quick] [--seeds N]`.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from benchmarks.efficiency import WORLDS
from benchmarks.kept import ROOT, figure, ratio, write
from connectors.progress import RichProgress
from connectors.wiring import cache_folder
from loop.config import StudentConfig
from loop.ports import Example
from loop.student import lora
from loop.student.decoder import Decoder
from loop.student.distill_step_by_step import Row, tasks
from loop.student.fitting import Lesson, mean_loss
from loop.student.trainer import DecoderTrainer

SET = "esnli_palm.smollm2"
ROWS, QUICK, UNSEEN = 64, 16, 32
WAYS = ("ours", "alike", "trainer")
BEGIN, END = 0.01, 0.1
"""How far the losses of ours and alike may be apart, as a share: rounding at the start, another order at the end."""
ATTENTION = "eager"
"""How the peer attends; 42.7 CPU seconds for 64 rationales, and 51.2 by the fused kernel (one run of each)."""
SOURCES = [
    "benchmarks/training.py",
    *(
        f"loop/student/{name}.py"
        for name in (
            *("checkpoint", "decoder", "distill_step_by_step", "fitting", "lora", "prompts", "reading", "trainer"),
            *("training", "tree", "weighing", "writer"),
        )
    ),
]
Cell = dict[str, Any]


def main() -> None:
    """Run each way, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rationales, and no Trainer with its defaults")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions of each way")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "SEED", "ROWS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        way, seed, rows = chosen.one
        print(json.dumps(_one(way, chosen.data, int(seed), int(rows))))
        return
    rows, ways = (QUICK, WAYS[:2]) if chosen.quick else (ROWS, WAYS)
    cells = [_apart(way, chosen.data, seed, rows) for seed in range(chosen.seeds) for way in ways]
    figures = _figures(cells)
    settings = {
        "rationales": rows,
        "repetitions": chosen.seeds,
        "model": "SmolLM2-135M",
        "threads": 1,
        "peer": f"transformers {version('transformers')} Trainer, accelerate {version('accelerate')}",
        "time": "CPU seconds of the process, from loading the model to the saved checkpoint",
        "losses": {way: [cell["loss"] for cell in cells if cell["way"] == way] for way in ways},
        "limit": f"{_mean(cells, 'flops') / 1e9:.0f} GFLOP a CPU second in a bfloat16 product",
    }
    if chosen.json:
        write(chosen.json, "training", settings=settings, figures=figures, sources=SOURCES, cells=cells)
    table = Table("figure", "value", "interval", box=None)
    for name, each in figures.items():
        table.add_row(name, f"{each['value']} {each['unit']}", f"{each['low']} to {each['high']}")
    Console().print(table)


def _apart(way: str, data: Path, seed: int, rows: int) -> Cell:
    words = [sys.executable, "-m", "benchmarks.training", "--data", str(data), "--one", way, str(seed), str(rows)]
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: Cell = json.loads(done.stdout.splitlines()[-1])
    Console(stderr=True).print(found)
    return found


def _figures(cells: Sequence[Cell]) -> dict[str, Any]:
    """Speeds against each other; that ours and alike learned, and as much, is asserted."""
    by_way = {way: [cell for cell in cells if cell["way"] == way] for way in WAYS}
    ours = by_way["ours"]
    for one, other in zip(ours, by_way["alike"], strict=True):
        for place, bound in (("begin", BEGIN), ("loss", END)):
            assert math.isclose(one[place], other[place], rel_tol=bound), (place, one, other)
        assert all(each["loss"] < each["begin"] for each in (one, other)), (one, other)
    seconds = {way: [cell["seconds"] / cell["tokens"] for cell in some] for way, some in by_way.items()}
    found = {"speedup_trainer_alike": ratio(seconds["alike"], seconds["ours"])}
    if by_way["trainer"]:
        found = {"speedup_trainer": ratio(seconds["trainer"], seconds["ours"]), **found}
    shares = [cell["needed"] / cell["flops"] / cell["training"] for cell in ours]
    speeds = [cell["tokens"] / cell["seconds"] for cell in ours]
    return {
        **found,
        "limit_share": figure(sum(shares) / len(shares), min(shares), max(shares), "share"),
        "tokens_per_cpu_second": figure(sum(speeds) / len(speeds), min(speeds), max(speeds), "tokens"),
    }


def _mean(cells: Sequence[Cell], name: str) -> float:
    return float(sum(cell[name] for cell in cells) / len(cells))


# --- one way --------------------------------------------------------------------------------------------------------


def _one(way: str, data: Path, seed: int, count: int) -> Cell:
    """Train one way, and say what it took and how well it learned."""
    torch.set_num_threads(1)
    disable_progress_bar()
    make, _ = WORLDS[SET]
    world = make(data)
    config = StudentConfig(epochs=1, learning_rate=2e-4, max_new_tokens=96)
    trainer = DecoderTrainer(config, world.task, cache_folder())
    told = [each for each in world.teacher if each.steps]
    examples, unseen = told[:count], told[count : count + UNSEEN]
    flops, first = _flops(), trainer.student(None)
    lesson = trainer.lesson(first, first.model, unseen)
    begin = (_begin_alike if way == "alike" else _begin)(trainer, lesson)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        learned = {"ours": _ours, "alike": _alike, "trainer": _plain}[way]
        base, model, training = learned(trainer, examples, seed, Path(folder) / "student")
        seconds = time.process_time() - started
    rows = [row for task in tasks(base, examples, config) for row in task.rows]
    loss = mean_loss(trainer.lesson(base, model, unseen), range(len(unseen)), config.batch_size)
    return {
        "way": way,
        "seed": seed,
        "seconds": round(seconds, 2),
        "training": round(training, 2),
        "tokens": sum(len(context) + len(target) for context, target in rows),
        "needed": _needed(first, tasks(base, examples, config)),
        "flops": flops,
        "begin": round(begin, 4),
        "loss": round(loss, 4),
    }


def _begin(trainer: DecoderTrainer, lesson: Lesson) -> float:
    """The loss before anything was learned."""
    return mean_loss(lesson, range(len(lesson.examples)), trainer.config.batch_size)


def _begin_alike(trainer: DecoderTrainer, lesson: Lesson) -> float:
    """The same as the peer counts it, in the same batches."""
    base = trainer.on_torch(None)
    rows, collate = _pairs(base, lesson.examples, trainer.config)
    with tempfile.TemporaryDirectory() as folder:
        peer = _TwoTasks(base.model, _arguments(Path(folder), 0))

    def losses(batch: Sequence[int], _: Sequence[int]) -> Iterator[torch.Tensor]:
        yield peer.compute_loss(base.model, collate([rows[number] for number in batch]))

    return mean_loss(replace(lesson, losses=losses), range(len(lesson.examples)), trainer.config.batch_size)


def _ours(trainer: DecoderTrainer, examples: Sequence[Example], seed: int, folder: Path) -> tuple[Any, Any, float]:
    """What a round does; the time of its training as its card says it, and the student as it is loaded again."""
    started = time.process_time()
    quiet = RichProgress(Console(quiet=True))
    trainer.train(examples, seed=seed, folder=folder, progress=quiet)
    training = time.process_time() - started
    student = trainer.student(folder)
    return student, student.model, training


class _TwoTasks(Trainer):
    """As the authors' trainer: two forward passes, and the mixed loss."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Half of the answer task's loss and half of the rationale task's."""
        answer, rationale = (model(**inputs[name]) for name in ("answer", "rationale"))
        loss = 0.5 * answer.loss + 0.5 * rationale.loss
        return (loss, {"answer": answer}) if return_outputs else loss


def _alike(trainer: DecoderTrainer, examples: Sequence[Example], seed: int, folder: Path) -> tuple[Any, Any, float]:
    """A `Trainer` with our dtype, adapters, batch and rate, and the settings of its own that make it quick."""
    set_seed(seed)
    base = trainer.on_torch(None)
    base.model.set_attn_implementation(ATTENTION)
    from peft import get_peft_model  # noqa: PLC0415 - the peer's own adapters

    model = get_peft_model(base.model, lora.settings(base.model, trainer.config.lora_rank, trainer.lora_task))
    rows, collate = _pairs(base, examples, trainer.config)
    settings = _arguments(
        folder,
        seed,
        per_device_train_batch_size=trainer.config.batch_size,
        learning_rate=trainer.config.learning_rate,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
    )
    return base, model, _run(_TwoTasks(model, settings, data_collator=collate, train_dataset=rows), folder)


def _pairs(
    base: Decoder, examples: Sequence[Example], config: StudentConfig
) -> tuple[list[Cell], Callable[[Sequence[Cell]], Cell]]:
    """Both tasks' rows of each example, and what makes a batch of some."""
    both = [[_features(row) for row in task.rows] for task in tasks(base, examples, config)]
    rows: list[Cell] = [
        {"answer": answer, "rationale": rationale, "input_ids": rationale["input_ids"]}  # the last to be grouped by
        for answer, rationale in zip(*both, strict=True)
    ]
    collator = _collator(base)
    return rows, lambda some: {name: collator([each[name] for each in some]) for name in ("answer", "rationale")}


def _plain(trainer: DecoderTrainer, examples: Sequence[Example], seed: int, folder: Path) -> tuple[Any, Any, float]:
    """A `Trainer` with its defaults, on the rows of both tasks."""
    set_seed(seed)
    config = trainer.config.model_copy(update={"dtype": "float32", "lora_rank": 0})
    base = DecoderTrainer(config, trainer.task, trainer.cache).on_torch(None)
    rows = [_features(row) for task in tasks(base, examples, config) for row in task.rows]
    whole = Trainer(base.model, _arguments(folder, seed), data_collator=_collator(base), train_dataset=rows)
    return base, base.model, _run(whole, folder)


def _arguments(folder: Path, seed: int, **more: Any) -> TrainingArguments:
    """The defaults, one epoch, and nothing written but the end."""
    return TrainingArguments(
        str(folder), num_train_epochs=1, seed=seed, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        **more,
    )  # fmt: skip


def _run(trainer: Trainer, folder: Path) -> float:
    started = time.process_time()
    trainer.train()
    training = time.process_time() - started
    trainer.save_model(str(folder))
    trainer.model.train(False)
    return training


def _features(row: Row) -> dict[str, list[int]]:
    context, target = row
    return {
        "input_ids": context + target,
        "attention_mask": [1] * len(context + target),
        "labels": [-100] * len(context) + target,
    }


def _collator(base: Decoder) -> DataCollatorForSeq2Seq:
    base.tokenizer.pad_token_id = base.pad
    base.tokenizer.padding_side = "right"
    return DataCollatorForSeq2Seq(base.tokenizer)


# --- the limit ------------------------------------------------------------------------------------------------------


def _needed(student: Decoder, mixed: Sequence[Any]) -> float:
    """Floating-point operations in products with the model's weights that learning these rows by adapters needs.

    Twice the weights a token forwards and as much backwards, each question once; the product with the vocabulary for
    target tokens alone. Products of adapters and of attention are left out.
    """
    head = student.model.get_output_embeddings().weight.numel()
    body = sum(each.numel() for each in student.model.parameters()) - head
    rows = list(zip(*(task.rows for task in mixed), strict=True))
    read = sum(len(_tree([context + target for context, target in some])) for some in rows)
    targets = sum(len(target) for some in rows for _, target in some)
    return 4.0 * (body * read + head * targets)


def _tree(texts: Sequence[Sequence[int]]) -> set[tuple[int, ...]]:
    """The beginnings of some texts, each once."""
    return {tuple(text[:end]) for text in texts for end in range(1, len(text) + 1)}


def _flops() -> float:
    """Floating-point operations per CPU second in a large bfloat16 product."""
    left, right = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(2):
        left @ right
    started = time.process_time()
    for _ in range(5):
        left @ right
    return 5 * 2 * 2048**3 / (time.process_time() - started)


if __name__ == "__main__":
    main()
