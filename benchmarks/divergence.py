"""How fast a student's explanations are sampled and their prefixes answered, beside plain ways to do the same.

Real SVAMP questions and SmolLM2 after a little training, so that explanations end by themselves. All ways sample with
the same settings, dtype and threads, and are compared by CPU seconds per generated token; what a way did not run on all
items is said in the settings. LM-Polygraph runs in an environment of its own, which is made once.

Racing is measured on e-SNLI, with a student of PaLM-540B's rationales, and beside it on the same SVAMP items, where
nearly all samples differ and no race can be short.

Both engines of `student.engine` are measured. `--openvino` measures its figures alone, beside one by one and torch in
the same run, and adds them to a file that holds the others.

Run as `python -m benchmarks.divergence --json FILE [--quick] [--openvino] [--data PATH]`.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from benchmarks.kept import ROOT, add, figure, ratio, write
from connectors.progress import RichProgress
from connectors.wiring import cache_folder
from loop.answer import Answer, AnswerKind, split_steps
from loop.config import QueryConfig, StudentConfig, TaskConfig
from loop.ports import Example
from loop.query.divergence import divergences_of, rank_average
from loop.query.racing import foresee, undecided
from loop.records import Item, Split
from loop.student import prompts
from loop.student.decoder import Decoder
from loop.student.trainer import DecoderTrainer

SAMPLES, TEMPERATURE, TOP_P = 4, 0.7, 0.95
LONGEST = 96
BATCH = 16
"""Items that the batched baseline generates for at a time (times SAMPLES sequences)."""
PIECE = 128
"""Items that a round explains at a time."""
PEER_BATCH = 10
PREFIXED = 8
"""Items whose prefixes are answered at a time."""
RESAMPLED = 200
ALONE, ALONE_NAIVE = 96, 4
"""Items where OpenVINO is measured alone."""
SOURCES = [
    "loop/student/decoder.py",
    "loop/student/openvino.py",
    "loop/student/reading.py",
    "loop/student/tree.py",
    "loop/student/writer.py",
    "loop/query/racing.py",
    "loop/query/divergence.py",
    "benchmarks/divergence.py",
    "benchmarks/polygraph.py",
]
Row = dict[str, Any]


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--openvino", action="store_true", help="measure its figures alone and add them to FILE")
    parser.add_argument("--seeds", type=int, default=1, help="not used: times, not scores, are compared")
    chosen = parser.parse_args()
    disable_progress_bar()
    sizes = {"ours": 64, "batched": 32, "naive": 4} if chosen.quick else {"ours": 200, "batched": 48, "naive": 20}
    rows = _rows(chosen.data)
    student, on_openvino = _trained(rows[-48:])
    if chosen.openvino:
        _add_openvino(chosen.json, student, on_openvino, [_item(row) for row in rows[:ALONE]])
        return
    items = [_item(row) for row in rows[: sizes["ours"]]]
    speeds = {
        "ours": _measured(student, _ours, _pieces(items, PIECE)),
        "openvino": _measured(on_openvino, _ours, _pieces(items, PIECE)),
        "batched": _measured(student, _batched, _pieces(items[: sizes["batched"]], BATCH)),
        "naive": _measured(student, _batched, _pieces(items[: sizes["naive"]], 1), alone=True),
    }
    speeds["lm_polygraph"], polygraph = _polygraph(student, items[: sizes["naive"]])
    shared, apart = _prefixes(student, items[: sizes["batched"]])
    esnli, entailments = _entailment(chosen.data, sizes["ours"])
    racing = _racing(esnli, entailments)
    alike = {f"{name}.svamp": each for name, each in _racing(student, items).items()}
    peak, per_token = _matmul_flops(), _flops_per_token(student)
    figures = {
        "speedup_naive": ratio(speeds["naive"], speeds["ours"]),
        "speedup_naive.openvino": ratio(speeds["naive"], speeds["openvino"]),
        "speedup_batched": ratio(speeds["batched"], speeds["ours"]),
        "speedup_lm_polygraph": ratio(speeds["lm_polygraph"], speeds["ours"]),
        "speedup_prefixes_in_one_pass": ratio(apart, shared),
        "limit_share": _limit_share(speeds["ours"], peak / per_token),
        "limit_share.openvino": _limit_share(speeds["openvino"], peak / per_token),
        **racing,
        **alike,
    }
    settings = {
        "items": sizes,
        "peer": f"LM-Polygraph {polygraph}, greedy text, samples and LexicalSimilarity, in batches of {PEER_BATCH}",
        "samples": SAMPLES,
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "longest": LONGEST,
        "threads": torch.get_num_threads(),
        "dtype": str(student.model.dtype),
        "limit": f"{peak / 1e9:.0f} GFLOP/s in a matrix product on this machine, {per_token / 1e6:.0f} MFLOP a token",
        "time": "CPU seconds of the process",
    }
    write(chosen.json, "divergence", settings=settings, figures=figures, sources=SOURCES, cells=speeds)
    table = Table("figure", "value", "interval", box=None)
    for name, each in figures.items():
        table.add_row(name, f"{each['value']} {each['unit']}", f"{each['low']} to {each['high']}")
    Console().print(table)


def _add_openvino(file: Path, student: Decoder, on_openvino: Decoder, items: Sequence[Item]) -> None:
    """Measure OpenVINO, torch and one by one on fewer items, and add the figures of OpenVINO to a file."""
    found = {
        "openvino": _measured(on_openvino, _ours, _pieces(items, ALONE // 2)),
        "ours_beside_openvino": _measured(student, _ours, _pieces(items, ALONE // 2)),
        "naive_beside_openvino": _measured(student, _batched, _pieces(items[:ALONE_NAIVE], 1), alone=True),
    }
    share = _limit_share(found["openvino"], _matmul_flops() / _flops_per_token(student))
    against_torch = ratio(found["ours_beside_openvino"], found["openvino"])
    figures = {
        "speedup_naive.openvino": ratio(found["naive_beside_openvino"], found["openvino"]),
        "limit_share.openvino": share,
    }
    note = (
        f"the figures of OpenVINO were measured alone, {ALONE} items ({ALONE_NAIVE} one by one) in pieces of "
        f"{ALONE // 2}, {torch.get_num_threads()} threads; in that run torch took {against_torch['value']} times as "
        f"long a token ({against_torch['low']} to {against_torch['high']})"
    )
    add(file, figures=figures, cells=found, note=note)
    Console().print(figures, note)


def _limit_share(seconds: Sequence[float], limit: float) -> Row:
    """Generated tokens a second as a share of what the matrix products alone allow."""
    speeds = [1 / each for each in seconds]
    return figure(sum(speeds) / len(speeds) / limit, min(speeds) / limit, max(speeds) / limit, "share")


def _flops_per_token(student: Decoder) -> int:
    return 2 * sum(each.numel() for each in student.model.parameters())


def _measured(student: Decoder, way: Callable[..., int], pieces: Sequence[Sequence[Item]], **more: bool) -> list[float]:
    """CPU seconds per generated token, for each piece."""
    found = []
    for piece in pieces:
        started = time.process_time()
        tokens = way(student, piece, **more)
        found.append((time.process_time() - started) / tokens)
    return found


def _ours(student: Decoder, items: Sequence[Item]) -> int:
    """Tokens that `explain` generated: the greedy explanation and the samples."""
    explained = student.explain(items, copies=range(SAMPLES + 1), temperature=TEMPERATURE, top_p=TOP_P, seed=0)
    return sum(len(student.tokens(each.text)) + 1 for some in explained for each in some)


@torch.inference_mode()
def _batched(student: Decoder, items: Sequence[Item], *, alone: bool = False) -> int:
    """Tokens that the library's `generate` gave: greedy ones, and samples side by side or one after the other."""
    student.tokenizer.padding_side = "left"
    texts = [prompts.rationale_prompt(item) for item in items]
    encoded = student.tokenizer(texts, return_tensors="pt", padding=True)
    width = encoded["input_ids"].shape[1]
    common = {"max_new_tokens": LONGEST, "pad_token_id": student.pad}
    sampling = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 50}
    runs: list[Row] = [{"do_sample": False}]
    runs += [sampling] * SAMPLES if alone else [{**sampling, "num_return_sequences": SAMPLES}]
    tokens = 0
    for run in runs:
        written = student.model.generate(**encoded, **common, **run)[:, width:]
        ended = (written == student.end).int().argmax(dim=1)
        tokens += int(torch.where((written == student.end).any(dim=1), ended + 1, written.shape[1]).sum())
    return tokens


def _polygraph(student: Decoder, items: Sequence[Item]) -> tuple[list[float], str]:
    """CPU seconds per generated token of LM-Polygraph on the same student, and its version."""
    python = cache_folder() / "lm-polygraph" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "--constraint", str(ROOT / "constraints.txt"), "torch"], check=True)
        subprocess.run([*install, "lm-polygraph"], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student.model.save_pretrained(folder / "student")
        student.tokenizer.save_pretrained(folder / "student")
        asked = {
            "model": str(folder / "student"),
            "texts": [prompts.rationale_prompt(item) for item in items],
            "batch": PEER_BATCH,
            "samples": SAMPLES,
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
            "longest": LONGEST,
            "threads": torch.get_num_threads(),
        }
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        files = [str(folder / "asked.json"), str(folder / "found.json")]
        subprocess.run([str(python), str(ROOT / "benchmarks" / "polygraph.py"), *files], check=True)
        seconds: list[float] = json.loads((folder / "found.json").read_text(encoding="utf-8"))["seconds"]
    listed = subprocess.run(
        [str(python), "-c", "from importlib.metadata import version; print(version('lm-polygraph'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return seconds, listed.stdout.strip()


def _prefixes(student: Decoder, items: Sequence[Item]) -> tuple[list[float], list[float]]:
    """CPU seconds per item for all forced answers: as branches of one sequence, and each in a pass of its own."""
    explained = student.explain(items, copies=[0], temperature=TEMPERATURE, top_p=TOP_P, seed=0)
    shared, apart = [], []
    for start in range(0, len(items), PREFIXED):
        piece = items[start : start + PREFIXED]
        steps = [some[0].steps for some in explained[start : start + PREFIXED]]
        parts = [[each[:count] for count in range(len(each) + 1)] for each in steps]
        started = time.process_time()
        student.answers_after(piece, parts)
        middle = time.process_time()
        alone = [(item, part) for item, some in zip(piece, parts, strict=True) for part in some]
        student.answers_after([item for item, _ in alone], [[part] for _, part in alone])
        shared.append((middle - started) / len(piece))
        apart.append((time.process_time() - middle) / len(piece))
    return shared, apart


def _racing(student: Decoder, items: Sequence[Item]) -> dict[str, Row]:
    """What racing finds of the batch that all samples would give, and the share of the tokens that it generates.

    The batch is a fifth of the items. The ceiling is what a second, independent computation finds of the same batch.
    Intervals from resampled items.
    """
    explained = student.explain(items, copies=range(2 * SAMPLES + 1), temperature=TEMPERATURE, top_p=TOP_P, seed=0)
    tokens = np.array([[len(student.tokens(each.text)) + 1 for each in some] for some in explained])
    config = QueryConfig(samples=SAMPLES, batch_size=len(items) // 5)
    first, second = (
        divergences_of(items, [[some[0], *some[start : start + SAMPLES]] for some in explained], student, config)
        for start in (1, SAMPLES + 1)
    )
    chance = np.random.default_rng(0)
    drawn = [range(len(items)), *(chance.choice(len(items), len(items)) for _ in range(RESAMPLED))]
    found = []
    for rows in drawn:
        whole, again = ([parts[row] for row in rows] for parts in (first, second))
        raced = _raced(whole, config)
        wanted = _best(whole, [each["inter"] for each in whole], config)
        looked = [1 + len(each["sampled_answers"]) for each in raced]
        spent = sum(tokens[row, :count].sum() for row, count in zip(rows, looked, strict=True))
        found.append(
            (
                len(wanted & _best(raced, foresee(raced, config).tolist(), config)) / config.batch_size,
                len(wanted & _best(again, [each["inter"] for each in again], config)) / config.batch_size,
                spent / tokens[list(rows), : SAMPLES + 1].sum(),
            )
        )
    overlap, ceiling, share = np.array(found).T
    named = {
        "racing_overlap": (overlap, "of the batch"),
        "racing_ceiling": (ceiling, "of the batch"),
        "racing_overlap_of_ceiling": (overlap / ceiling, "x"),
        "racing_token_share": (share, "of the tokens"),
    }
    return {
        name: figure(values[0], *map(float, np.quantile(values[1:], [0.025, 0.975])), unit)
        for name, (values, unit) in named.items()
    }


def _raced(rows: Sequence[Row], config: QueryConfig) -> list[Row]:
    """The parts of the divergence after a race, from samples that are there."""
    seen = [{**row, "sampled_answers": row["sampled_answers"][:1]} for row in rows]
    for taken in range(1, config.samples):
        for place in np.flatnonzero(undecided(seen, taken, np.ones(len(seen)), config)):
            seen[place] = {**seen[place], "sampled_answers": rows[place]["sampled_answers"][: taken + 1]}
    return seen


def _best(rows: Sequence[Row], inter: Sequence[float], config: QueryConfig) -> set[int]:
    divergence = rank_average([row["intra"] for row in rows], inter, config.intra_weight)
    return set(np.argsort(-divergence, kind="stable")[: config.batch_size].tolist())


def _matmul_flops() -> float:
    """Floating-point operations per CPU second in a large bfloat16 matrix product."""
    left, right = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    started = time.process_time()
    for _ in range(20):
        left @ right
    return 20 * 2 * 2048**3 / (time.process_time() - started)


def _trained(rows: Sequence[Row]) -> tuple[Decoder, Decoder]:
    """SmolLM2 after two passes over a few rationales from the gold equations, on torch and on OpenVINO."""
    config = StudentConfig(epochs=2, max_new_tokens=LONGEST, generation_batch=256)
    trainer, other = (
        DecoderTrainer(
            config.model_copy(update={"engine": engine}), TaskConfig(answer=AnswerKind.NUMBER), cache_folder()
        )
        for engine in ("torch", "openvino")
    )
    examples = [
        Example(
            _item(row),
            (f"{str(row['meta']['equation']).strip('() ')} = {row['gold']}",),
            Answer(kind=AnswerKind.NUMBER, value=str(row["gold"])),
        )
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "student"
        trainer.train(examples, seed=0, folder=made, progress=RichProgress(Console()))
        return trainer.student(made), other.student(made)


def _entailment(data: Path, count: int) -> tuple[Decoder, list[Item]]:
    """SmolLM2 after four passes over 120 of PaLM-540B's rationales on e-SNLI, and other items."""
    rows = _rows(data, "esnli_palm")[1000 : 1120 + count]
    labels = sorted({row["gold"] for row in rows})
    config = StudentConfig(epochs=4, learning_rate=2e-4, max_new_tokens=48, generation_batch=256)
    task = TaskConfig(answer=AnswerKind.LABEL, labels=dict.fromkeys(labels, ""))
    trainer = DecoderTrainer(config, task, cache_folder())
    examples = [
        Example(
            _item(row),
            tuple(split_steps(row["teacher"][0]["rationale"])),
            Answer(kind=AnswerKind.LABEL, value=row["teacher"][0]["answer"]),
        )
        for row in rows[:120]
        if row["teacher"][0]["answer"] in labels
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(examples, seed=0, folder=Path(folder) / "student", progress=RichProgress(Console()))
        return trainer.student(Path(folder) / "student"), [_item(row) for row in rows[120:]]


def _pieces(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _rows(data: Path, name: str = "svamp") -> list[Row]:
    file = data / "rationales" / f"{name}.jsonl.gz"
    if not file.exists():
        raise SystemExit(f"{file}: no such file; name the real data with --data PATH")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _item(row: Row) -> Item:
    return Item(key=row["id"], question=row["question"], split=Split.POOL, text_hash="")


if __name__ == "__main__":
    main()
