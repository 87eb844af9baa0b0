"""How well wrong rationales are found before anybody reviews them, and what is promised of the others.

On recorded rationales of real teachers, marked right or wrong by the right answer or by people. All is learned on the
train split, from at most 300 reviewed rationales drawn at random (their marks stand in for verdicts), and judged on
the dev split. Where several teachers answered the same items, one is judged at a time, and the others that are no
stronger on train stand in for its other samples. The peers see the same rows. On NLI labels, where there are no other
samples, the student is the encoder trained on the teacher's labels of the other half of the train split.

The promise: audited rows certify a threshold at alpha 5 %, delta 10 %, and the rows below it that nobody audited are
counted, 200 times.

Run as `python -m benchmarks.flags --json FILE [--data FILE_OR_FOLDER ...] [--reviews N] [--seeds N] [--quick]`.
"""

import argparse
import gzip
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from benchmarks.kept import ROOT, code_hash, figure, write
from connectors.progress import RichProgress
from connectors.wiring import cache_folder
from loop.answer import AnswerKind, parse_answer, split_steps
from loop.certificate import certified_threshold, thresholds_to_test
from loop.checks import first_error
from loop.checks.arithmetic import wrong_equations
from loop.checks.doubt import Doubt, Doubtful
from loop.checks.flag import doubts
from loop.checks.learn import Judged, Learned, learn
from loop.checks.risk import Reviewed, evidence, fit
from loop.config import ChecksConfig, StudentConfig, TaskConfig
from loop.interval import clopper_pearson_upper
from loop.ports import Example
from loop.records import Author, Item, Rationale, Split
from loop.student.packaged import model_directory

SOURCES = [
    "benchmarks/flags.py",
    "benchmarks/uqlm_scores.py",
    "loop/certificate.py",
    *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "loop" / "checks").glob("*.py")),
]
REVIEWS = 300
ALPHA, DELTA = 0.05, 0.10
REPEATS = 200
RESAMPLES = 400
FEWEST_OTHERS = 3
"""Other teachers that are no stronger, below which a teacher is not judged where a file has so many."""
POOL = 600
"""Rationales that nobody judged, from which the reader learns what is usual."""
STUDENT_ROWS = 1000
"""Labelled rows from which on a student is trained."""
STUDENT = StudentConfig(
    kind="encoder",
    model="all-minilm-l6-v2",
    epochs=3,
    learning_rate=1e-4,
    batch_size=16,
    rationale_weight=0,
    answers_by="answer",
)
PARTS: Mapping[str, Mapping[str, Any]] = {
    "votes": {"siblings": ()},
    "context": {"beside": ()},
    "student": {"probabilities": None},
    "vectors": {"embed": None},
}
"""What is taken away one at a time, to see what it is worth."""
TIMED = 30
"""Dev rationales that are checked one by one, as a campaign does, for the time that one takes."""
AUDITS = 300
PROMISED = 500
"""Train rows that were not reviewed and share the promise's splits with the dev rows."""
SHORT = 300
"""Mean characters of the rationales that people judged, below which vectors of them are cheap enough."""
ANY = "any"
"""The teacher of a file that people judged."""
CHECKS = ChecksConfig()
UQLM = "0.6.7"
BESIDE = ("pyarrow<22",)
"""What uqlm's own requirements leave too new for the NumPy that they name."""
MARKS = {
    "vote_share": ("s", "tab:orange"),
    "semantic_entropy": ("D", "tab:green"),
    "n_gram": ("v", "tab:red"),
    "words": ("x", "0.4"),
    "teachers_nll": ("^", "tab:purple"),
    "student_confidence": ("P", "tab:brown"),
    "cleanlab": ("*", "tab:pink"),
    "uqlm_cosine": ("<", "tab:olive"),
}
VOTES = (
    "what is missed are answers that the weaker teachers share or get wrong in ways of their own; an equally strong "
    "second teacher or a judge that reads the steps would move it"
)
ACCEPTABLE = (
    "the marks are three crowd votes, often two against one (`auroc_unanimous` leaves these out), and what is missed "
    "is whether a fluent claim is true or to the point; a larger reader, a judge, or more reviews would move it"
)
GOALS: Mapping[str, tuple[float, str]] = {
    "auroc.gsm8k": (0.90, VOTES),
    "auroc.svamp": (0.90, VOTES),
    "recall_at_30.gsm8k": (0.80, VOTES),
    "recall_at_30.svamp": (0.80, VOTES),
    "auroc.esnli_palm": (0.80, "a student of more reviewed labels, or one that read other NLI data, would move it"),
    "recall_at_30.esnli_palm": (0.60, "as for its AUROC"),
    "auroc.fse_commonsenseqa": (0.80, ACCEPTABLE),
    "auroc.fse_snli": (0.80, ACCEPTABLE),
    "first_error_f1.processbench_gsm8k_math": (
        36.5,
        "300 marked solutions teach where errors stand and what they look like, not whether a step follows; other "
        "samples of the same item to compare steps with, or a judge, would move it",
    ),
}
NOTES = [
    "Settings were chosen by cross-validation within train splits, never on dev: 45 variants of counts, shrinkage, "
    "votes, trees, vectors and steps, on gsm8k, svamp, esnli_palm, fse_commonsenseqa and processbench_gsm8k_math.",
    "SNLI gives each premise one hypothesis of each label, and rows of one premise are in one split, so that equal "
    "answers in one context are suspicious; `auroc_without_context.esnli_palm` is what is reached where items share "
    "no context. MiniLM's own training had other pairs of SNLI in it, which helps the student.",
    "In fse_* the five explanations of an item are each other's samples; their answer is the right label, so that "
    "votes say nothing. The reader uses the teacher's likelihood as its confidence there.",
    "Of uqlm run exact match and cosine (MiniLM) on the answers, in fse_* on the explanations. Its scorers by NLI and "
    "BERTScore need models that are on a hub alone, its other scorers ask a language model.",
    "`promise_held_share` counts certificates by the rows that were not audited; on gsm8k, svamp and esnli_palm "
    "its upper bound is under 0.90, so that it counts as broken there. `promise_unbroken_share` counts all splits, "
    "one without a certificate promising nothing. Two reasons were found: where a teacher is often wrong, a "
    "certificate is only got by luck (two of gsm8k's teachers got 15 in 400 splits, none of which held); and where "
    "audits are a third of few rows, what they found is missing from the rest (of svamp's text-davinci-003, 30 "
    "certificates did not hold on the rest, 18 of them with at most 5 % wrong below the threshold among all rows). "
    "Not testing thresholds below which the risk itself expects more than alpha wrong, and the finite bound that "
    "exports use, would move it; neither was tried.",
    "One choice came after a look at dev: thresholds to certify became quantiles of all risks when fixed ones had "
    "certified almost nothing on svamp.",
    "On halueval_general words of item and rationale alone (`auroc_words`) do as well as the reader, which does not "
    "read the item's words; on bbh_mistake and sports too, whose rationales follow a form.",
    "`auroc_lucky`: among rationales with the right answer, those with a wrong step. `auroc_without_PART`: one part "
    "taken away, first draw of reviewed rows alone.",
]
Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A rationale with what people or the right answer say of it."""

    key: str
    group: str
    """Cases of one group are drawn together: rationales of one item, items of one premise."""
    doubtful: Doubtful
    wrong: bool
    answer_right: bool
    first_error: int | None = None
    nll: float | None = None
    unanimous: bool = False
    """Whether all who judged it said the same."""

    @cached_property
    def plain(self) -> Mapping[str, float]:
        """The evidence of the checks that learn nothing."""
        return evidence(doubts(self.doubtful, CHECKS))


@dataclass(frozen=True)
class World:
    """One teacher's rationales of a file."""

    name: str
    teacher: str
    others: int
    kind: AnswerKind
    train: Sequence[Case]
    dev: Sequence[Case]


def main() -> None:
    """Measure every file, print tables, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", default=[ROOT.parent / "shared" / "data"])
    parser.add_argument("--reviews", type=int, default=REVIEWS)
    parser.add_argument("--seeds", type=int, default=2, help="draws of the reviewed rows")
    parser.add_argument("--quick", action="store_true", help="SVAMP alone, without uqlm")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    files = [file for given in chosen.data for file in _files(given)]
    if chosen.quick:
        files = [file for file in files if file.name.startswith("svamp")]
    settings = {
        "reviews": chosen.reviews,
        "seeds": chosen.seeds,
        "alpha": ALPHA,
        "delta": DELTA,
        "promises": REPEATS,
        "verdicts": "the file's marks, not people at work",
        "interval": "95 % bootstrap over dev items; of a promise exact; of a coverage the middle 95 % of splits",
        "peers": f"uqlm {UQLM}, cleanlab {version('cleanlab')}",
    }
    figures, cells = _kept(chosen.json, settings)
    done = {cell["set"] for cell in cells}
    for file in files:
        if file.name.removesuffix(".jsonl.gz") in done:
            continue
        found = _measure(worlds(file), chosen.reviews, chosen.seeds, with_uqlm=not chosen.quick)
        figures |= _figures(found)
        _show(found)
        cells += [{name: value for name, value in cell.items() if not name.startswith("_")} for cell in found]
        notes = settings | {"notes": _notes(figures)}
        write(chosen.json, "flags", settings=notes, figures=figures, sources=SOURCES, cells=cells)
    _draw(figures, chosen.json)


def _kept(file: Path, settings: Row) -> tuple[Row, list[Row]]:
    """Figures and cells of a run of the same code and settings that was cut off."""
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["code"] == code_hash(SOURCES) and settings.items() <= kept["settings"].items():
            return kept["figures"], kept["cells"]
    return {}, []


def _measure(found: Sequence[World], reviews: int, seeds: int, *, with_uqlm: bool) -> list[Row]:
    cells = [cell for world in found for cell in [_cell(world, reviews, seeds)] if cell]
    uqlm = _uqlm(found) if with_uqlm and cells else {}
    return [cell | {"_peers": cell["_peers"] | uqlm.get(cell["teacher"], {})} for cell in cells]


def _files(given: Path) -> list[Path]:
    if given.is_file():
        return [given]
    return sorted([*given.glob("rationales/*.jsonl.gz"), *given.glob("marks/*.jsonl.gz")])


# --- worlds ---------------------------------------------------------------------------------------------------------


def worlds(file: Path) -> list[World]:
    """One world for each teacher of a file that has enough others; a file with people's marks is one world.

    Where no teacher of a file has three others that are no stronger, those are taken that have the most.
    """
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows: list[Row] = [json.loads(line) for line in lines]
    name = file.name.removesuffix(".jsonl.gz")
    task = _task(rows)
    if any(row.get("rationale_ok") is not None for row in rows):
        rows = [row for row in rows if row["rationale_ok"] is not None]
        samples: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            samples[_item_of(row)].append(row)
        made = [_marked(row, samples[_item_of(row)], task) for row in rows]
        others = max(map(len, samples.values())) - 1
        return [_world(name, ANY, others, task, rows, made)]
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row["split"] == "train":
            for model, said in _said(row).items():
                right[model].append(bool(said["correct"]))
    strength = {model: float(np.mean(each)) for model, each in right.items()}
    found = []
    for model in sorted(strength):
        weaker = sorted(other for other in strength if other != model and strength[other] <= strength[model])
        if len(weaker) < min(FEWEST_OTHERS, len(strength) - 1):
            continue
        mine = [row for row in rows if model in _said(row)]
        made = [_case(row, model, weaker, task) for row in mine]
        found.append(_world(name, model, len(weaker), task, mine, made))
    return found


def _world(name: str, teacher: str, others: int, task: TaskConfig, rows: Sequence[Row], made: Sequence[Case]) -> World:
    """The cases by split, each with those that share its context, and with vectors where texts are short."""
    length = np.mean([len(" ".join(case.doubtful.rationale.steps)) for case in made])
    embed = _embedder() if teacher == ANY and length < SHORT else None
    cases: dict[str, list[Case]] = {"train": [], "dev": []}
    for row, case in zip(rows, made, strict=True):
        cases[row["split"]].append(replace(case, doubtful=replace(case.doubtful, embed=embed)))
    return World(name, teacher, others, task.answer, *(_with_context(cases[split]) for split in ("train", "dev")))


def _with_context(cases: Sequence[Case]) -> list[Case]:
    beside: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.doubtful.item.context:
            beside[case.doubtful.item.context].append(case)

    def others(case: Case) -> list[Doubtful]:
        same = beside.get(case.doubtful.item.context, [])
        return [each.doubtful for each in same if each.doubtful.item.key != case.doubtful.item.key]

    return [replace(case, doubtful=replace(case.doubtful, beside=others(case))) for case in cases]


def _said(row: Row) -> dict[str, Row]:
    """What each teacher said; of several runs of a model the first."""
    return {said["model"]: said for said in reversed(row["teacher"])}


def _item_of(row: Row) -> str:
    """Samples of one item are rows of their own in some files."""
    return str(row.get("orig_id", row["id"]))


def _task(rows: Sequence[Row]) -> TaskConfig:
    """What kind of answer a file has: its choices say so, or its gold answers."""
    gold = [str(row["gold"]) for row in rows if row["gold"] is not None]
    choices = {tuple(row["choices"] or ()) for row in rows}
    if choices != {()}:
        if len(choices) == 1:
            return TaskConfig(answer=AnswerKind.LABEL, labels=dict.fromkeys(next(iter(choices)), ""))
        return TaskConfig(answer=AnswerKind.CHOICE)
    if gold and np.mean([parse_answer(each, AnswerKind.NUMBER) is not None and len(each) < 12 for each in gold]) > 0.9:
        return TaskConfig(answer=AnswerKind.NUMBER if not any("/" in each for each in gold) else AnswerKind.TEXT)
    if gold and len(set(gold)) <= 100 and len(gold) > 5 * len(set(gold)):
        return TaskConfig(answer=AnswerKind.LABEL, labels=dict.fromkeys(sorted(set(gold)), ""))
    return TaskConfig(answer=AnswerKind.TEXT if gold else AnswerKind.NUMBER)


def _case(row: Row, model: str, weaker: Sequence[str], task: TaskConfig) -> Case:
    """What a teacher said, with what the weaker ones said; the right answer tells whether it is wrong."""
    said, item = _said(row), _item(row, task)
    others = [_rationale(said[each], at, [], item, task) for at, each in enumerate(weaker, start=1) if each in said]
    return Case(
        key=str(row["id"]),
        group=str(row.get("group", row["id"])),
        doubtful=Doubtful(item, _rationale(said[model], 0, [], item, task), task, others),
        wrong=not said[model]["correct"],
        answer_right=bool(said[model]["correct"]),
    )


def _marked(row: Row, samples: Sequence[Row], task: TaskConfig) -> Case:
    """A rationale that people judged, with the teacher's other samples on its item."""
    said, item = row["teacher"][0], _item(row, task)
    marks = [mark["step"] for mark in row.get("step_labels") or ()] if "first_error" in row else []
    others = [each["teacher"][0] for each in samples if each is not row]
    votes = row.get("rationale_ok_votes")
    return Case(
        key=str(row["id"]),
        group=_item_of(row),
        doubtful=Doubtful(
            item,
            _rationale(said, 0, marks, item, task),
            task,
            [_rationale(each, at, [], item, task) for at, each in enumerate(others, start=1)],
        ),
        wrong=not row["rationale_ok"],
        answer_right=bool(said["correct"]),
        first_error=row.get("first_error"),
        nll=said.get("nll"),
        unanimous=votes is not None and votes[0] in (0, votes[1]),
    )


def _item(row: Row, task: TaskConfig) -> Item:
    """The item; what several share, a premise, is its context."""
    context, question = "", row["question"]
    if question.startswith("Premise:"):
        context, _, question = question.partition("\n")
    return Item(
        key=_item_of(row),
        question=question,
        context=context,
        choices=list(row["choices"] or ()) if task.answer is AnswerKind.CHOICE else [],
        split=Split.POOL,
        text_hash="",
    )


def _rationale(said: Row, sample: int, marks: Sequence[str], item: Item, task: TaskConfig) -> Rationale:
    stated = str(said["answer"] or "")
    answer = parse_answer(stated, task.answer, choices=item.choices, labels=tuple(task.labels)) if stated else None
    return Rationale(
        item_key=item.key,
        round_id=1,
        author=Author.TEACHER,
        sample=sample,
        steps=list(marks) or split_steps(said["rationale"] or ""),
        answer=None if answer is None else answer.canonical,
        stated=stated,
        confidence=math.exp(-said["nll"]) if "nll" in said else None,
    )


@cache
def _embedder() -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """The untrained encoder's vectors of texts, each made once."""
    from loop.student.trainer import EncoderTrainer  # noqa: PLC0415 - the other files need no torch

    task = TaskConfig(answer=AnswerKind.LABEL, labels={"yes": "", "no": ""})
    student = EncoderTrainer(STUDENT, task, cache_folder()).student(None)
    known: dict[str, NDArray[np.float32]] = {}

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            wanted = [Item(key=text, question=text, split=Split.POOL, text_hash="") for text in new]
            known.update(zip(new, student.embed(wanted), strict=True))
        return np.array([known[text] for text in texts])

    return embed


# --- one world ------------------------------------------------------------------------------------------------------


def _cell(world: World, reviews: int, seeds: int) -> Row | None:
    """Everything that is measured of one teacher; None where dev has fewer than five of a kind."""
    wrong = np.array([case.wrong for case in world.dev])
    if not 5 <= wrong.sum() <= len(wrong) - 5 or sum(case.wrong for case in world.train) < 5:
        return None
    alone = _label_peers(world)
    world = _with_student(world)
    runs = [_ours(world, reviews, seed) for seed in range(seeds)]
    peers = {**_peers(world, reviews, seeds), **alone}
    marked = any(case.first_error is not None for case in world.dev)
    return {
        "set": world.name,
        "teacher": world.teacher,
        "others": world.others,
        "dev": len(wrong),
        "wrong": round(float(wrong.mean()), 3),
        "milliseconds": _mean(run["milliseconds"] for run in runs),
        **_promise(runs),
        "_wrong": wrong,
        "_groups": [case.group for case in world.dev],
        "_right": np.array([case.answer_right for case in world.dev]),
        "_unanimous": np.array([case.unanimous for case in world.dev]),
        "_first": [case.first_error for case in world.dev] if marked else [],
        "_risks": [run["dev"] for run in runs],
        "_said": [run["said"] for run in runs],
        "_arithmetic": [_first_false_equation(case) for case in world.dev],
        "_without": _without(world, reviews),
        "_peers": peers,
    }


def _ours(world: World, reviews: int, seed: int) -> Row:
    """The risk of every dev rationale by what a campaign would do: checks, a reader, a risk fitted on the verdicts."""
    reviewed, learned = _learned(world, reviews, seed)
    timed = world.dev[:TIMED]
    started = time.process_time()
    alone = [_risk(case, learned) for case in timed]
    spent = time.process_time() - started
    taken = {case.key for case in reviewed}
    fresh = [case for case in world.train if case.key not in taken][:PROMISED]
    risks = _risks([*world.dev, *fresh], learned)
    assert np.allclose(risks[: len(timed)], alone), "checks that are run together say something else"
    return {
        "dev": risks[: len(world.dev)],
        "risks": risks,
        "wrong": np.array([case.wrong for case in (*world.dev, *fresh)]),
        "milliseconds": 1000 * spent / len(timed),
        "said": [learned.first_error and learned.first_error.first_error(case.doubtful) for case in world.dev],
    }


def _learned(world: World, reviews: int, seed: int) -> tuple[list[Case], Learned]:
    """The reviewed rows, and what they teach with some that nobody judged."""
    reviewed, pool = _drawn(world, reviews, seed)
    return reviewed, learn(_judged(reviewed), [case.doubtful for case in pool], seed=seed)


def _risk(case: Case, learned: Learned) -> float:
    return learned.risk(evidence(doubts(learned.knows(case.doubtful), CHECKS)))


def _risks(cases: Sequence[Case], learned: Learned) -> Floats:
    """The risk of each, with what the checks that learn nothing say of it, which was found before."""
    told: list[list[Doubt]] = [[] for _ in cases]
    if learned.reader is not None:
        for some, share in zip(told, learned.reader([case.doubtful for case in cases]), strict=True):
            some.append(Doubt("reader", None, "", float(share)))
    if learned.first_error is not None:
        for some, case in zip(told, cases, strict=True):
            some.extend(first_error.CHECK.find(learned.knows(case.doubtful), CHECKS))
    return np.array([learned.risk({**case.plain, **evidence(some)}) for case, some in zip(cases, told, strict=True)])


def _judged(reviewed: Sequence[Case]) -> list[Judged]:
    """What a reviewer would have said; of files where steps are marked also of the steps."""
    marked = any(case.first_error is not None for case in reviewed)
    return [
        Judged(
            case.doubtful,
            case.plain,
            case.wrong,
            steps=marked and (not case.wrong or case.first_error is not None),
            first_error=case.first_error,
        )
        for case in reviewed
    ]


def _drawn(world: World, reviews: int, seed: int) -> tuple[list[Case], list[Case]]:
    """The reviewed rows, at most half of the train split, and those of the others that are looked at unjudged."""
    order = np.random.default_rng(seed).permutation(len(world.train))
    reviews = min(reviews, len(order) // 2)
    return [world.train[at] for at in order[:reviews]], [world.train[at] for at in order[reviews : reviews + POOL]]


def _first_false_equation(case: Case) -> int | None:
    found = (doubt.step for doubt in wrong_equations(case.doubtful, CHECKS))
    return min((step for step in found if step is not None), default=None)


def _without(world: World, reviews: int) -> dict[str, Floats]:
    """Risks of the dev rows where a part is taken away, on the first draw of reviewed rows."""
    reviewed, _ = _drawn(world, reviews, 0)
    alone = fit([Reviewed(case.plain, case.wrong) for case in reviewed])
    found = {"reader": np.array([alone(case.plain) for case in world.dev])}
    for name, nothing in PARTS.items():
        if any(getattr(case.doubtful, field) for field in nothing for case in world.dev):
            poorer = replace(
                world,
                train=[_poorer(case, nothing) for case in world.train],
                dev=[_poorer(case, nothing) for case in world.dev],
            )
            found[name] = _risks(poorer.dev, _learned(poorer, reviews, 0)[1])
    return found


def _poorer(case: Case, nothing: Mapping[str, Any]) -> Case:
    beside = [replace(each, **nothing) for each in case.doubtful.beside]
    return replace(case, doubtful=replace(case.doubtful, **({"beside": beside} | nothing)))


def _with_student(world: World) -> World:
    """The world with what a student, trained on the teacher's labels of half the train rows, thinks of each item.

    Reviewed are rows of the other half.
    """
    if world.kind is not AnswerKind.LABEL or len(world.train) < STUDENT_ROWS or world.name.startswith("fse_"):
        return world
    order = np.random.default_rng(0).permutation(len(world.train))
    student = _trained([world.train[at] for at in order[0::2]])
    every = [*world.train, *world.dev]
    known = dict(zip([case.key for case in every], student([case.doubtful.item for case in every]), strict=True))

    def seen(case: Case) -> Case:
        return replace(case, doubtful=replace(case.doubtful, probabilities=lambda: known[case.key]))

    train, dev = (_with_context([seen(case) for case in cases]) for cases in (world.train, world.dev))
    return replace(world, train=[train[at] for at in sorted(order[1::2])], dev=dev)


def _trained(cases: Sequence[Case]) -> Callable[[Sequence[Item]], list[tuple[float, ...]]]:
    """The encoder student, trained on the labels that the teacher gave; kept for the next run."""
    from loop.student.trainer import EncoderTrainer  # noqa: PLC0415 - the other files need no torch

    trainer = EncoderTrainer(STUDENT, cases[0].doubtful.task, cache_folder())
    examples = [
        Example(item=case.doubtful.item, steps=(), answer=answer)
        for case in cases
        if (answer := case.doubtful.rationale.parsed) is not None
    ]
    told = [STUDENT.model_dump_json(), *(each.item.text + each.answer.canonical for each in examples)]
    path = cache_folder() / "flags" / hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        trainer.train(examples, seed=0, folder=path, progress=RichProgress(Console(quiet=True)))
    return trainer.student(path).probabilities


def _promise(runs: Sequence[Row]) -> Row:
    """How often a certified threshold kept its promise, over splits of the rows that were not reviewed.

    Each draw of reviewed rows fitted a model; its splits share the others between an audit and the rest.
    """
    chance = np.random.default_rng(0)
    held, covered = [], []
    for number in range(REPEATS):
        risks, wrong = runs[number % len(runs)]["risks"], runs[number % len(runs)]["wrong"]
        order = chance.permutation(len(risks))
        audits = min(AUDITS, len(order) // 3)
        audit, rest = order[:audits], order[audits:]
        tested = thresholds_to_test(risks.tolist(), audits, alpha=ALPHA, delta=DELTA)
        audited = list(zip(risks[audit].tolist(), wrong[audit].tolist(), strict=True))
        threshold = certified_threshold(tested, audited, alpha=ALPHA, delta=DELTA)
        below = rest[risks[rest] < threshold] if threshold is not None else rest[:0]
        covered.append(len(below) / len(rest))
        if len(below):
            held.append(bool(wrong[below].mean() <= ALPHA))
    return {
        "audits": audits,
        "certified": len(held),
        "held": sum(held),
        "promise_broken": bool(held) and clopper_pearson_upper(sum(held), len(held), 0.95) < 1 - DELTA,
        "covered": [round(each, 4) for each in covered],
    }


# --- peers ----------------------------------------------------------------------------------------------------------


def _peers(world: World, reviews: int, seeds: int) -> dict[str, list[Floats]]:
    """What each peer says of the dev rows, once for each draw of reviewed rows that it needs."""
    dev = [case.doubtful for case in world.dev]
    found: dict[str, list[Floats]] = {}
    if world.others:
        found["n-gram"] = [np.array([_ngram(case) for case in dev])]
    if any(len({each.answer for each in (case.rationale, *case.siblings)}) > 1 for case in dev):
        found["vote share"] = [np.array([_vote_share(case) for case in dev])]
        found["semantic entropy"] = [np.array([_entropy(case) for case in dev])]
    if world.dev[0].nll is not None:
        found["teacher's nll"] = [np.array([case.nll or 0.0 for case in world.dev])]
    found["words"] = [_word_regression(world, reviews, seed) for seed in range(seeds)]
    return found


def _vote_share(case: Doubtful) -> float:
    """Share of the other teachers' answers that differ."""
    return float(
        np.mean([each.answer != case.rationale.answer or each.answer is None for each in case.siblings] or [0])
    )


def _entropy(case: Doubtful) -> float:
    """Discrete semantic entropy of all answers (Farquhar and others, Nature 2024); equal answers are one cluster."""
    counts = Counter(each.answer for each in (*case.siblings, case.rationale))
    shares = np.array(list(counts.values())) / counts.total()
    return float(-(shares * np.log(shares)).sum())


def _ngram(case: Doubtful) -> float:
    """Mean surprise of the rationale under word counts of all samples (SelfCheckGPT's unigram variant)."""
    own = " ".join(case.rationale.steps).casefold().split()
    counts = Counter(
        word for each in (*case.siblings, case.rationale) for word in " ".join(each.steps).casefold().split()
    )
    return float(-np.mean([math.log(counts[word] / counts.total()) for word in own])) if own else 20.0


def _label_peers(world: World) -> dict[str, list[Floats]]:
    """A bag-of-words student's cross-validated belief in the label, and `cleanlab`'s quality of it."""
    from cleanlab.rank import get_label_quality_scores  # noqa: PLC0415

    if world.kind is not AnswerKind.LABEL or world.name.startswith("fse_"):
        return {}
    cases = [case for case in (*world.train, *world.dev) if case.doubtful.rationale.parsed is not None]
    given = np.array([case.doubtful.rationale.parsed.value for case in cases if case.doubtful.rationale.parsed])
    if min(Counter(given).values()) < 5:
        return {}
    texts = [case.doubtful.item.text for case in cases]
    student = make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    groups = [case.group for case in cases]
    shares = cross_val_predict(student, texts, given, groups=groups, cv=folds, method="predict_proba")
    labels = np.searchsorted(np.unique(given), given)
    quality = get_label_quality_scores(labels, shares, method="normalized_margin", adjust_pred_probs=True)
    belief = shares[np.arange(len(labels)), labels]
    by_key = {case.key: (belief[at], quality[at]) for at, case in enumerate(cases)}
    both = np.array([by_key.get(case.key, (0.0, 0.0)) for case in world.dev])
    return {"student confidence": [1 - both[:, 0]], "cleanlab": [1 - both[:, 1]]}


def _word_regression(world: World, reviews: int, seed: int) -> Floats:
    """TF-IDF of item, rationale and answer, with logistic regression on the reviewed rows."""
    reviewed, _ = _drawn(world, reviews, seed)

    def text(case: Case) -> str:
        return " ".join([case.doubtful.item.text, *case.doubtful.rationale.steps, case.doubtful.rationale.stated])

    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit([text(case) for case in reviewed], [case.wrong for case in reviewed])
    return np.asarray(model.predict_proba([text(case) for case in world.dev])[:, 1])


def _uqlm(found: Sequence[World]) -> dict[str, dict[str, list[Floats]]]:
    """For each teacher what `uqlm`'s black-box scorers say that ask no model, in an environment of their own."""
    several = [world for world in found if world.others >= FEWEST_OTHERS]
    if not several:
        return {}
    python = cache_folder() / "uqlm" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"uqlm=={UQLM}", *BESIDE], check=True)
    asked = {world.teacher: [_spoken(case.doubtful) for case in world.dev] for world in several}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "asked.json", Path(folder) / "found.json"]
        body = {"model": model_directory(STUDENT.model, cache_folder()), "asked": asked}
        files[0].write_text(json.dumps(body), encoding="utf-8")
        subprocess.run([str(python), str(ROOT / "benchmarks" / "uqlm_scores.py"), *map(str, files)], check=True)
        confidences = json.loads(files[1].read_text(encoding="utf-8"))
    return {
        teacher: {f"uqlm {name}": [1 - np.array(values)] for name, values in each.items()}
        for teacher, each in confidences.items()
    }


def _spoken(case: Doubtful) -> Row:
    """The samples as uqlm takes them: their answers where these may differ, else what they say."""
    several = (case.rationale, *case.siblings)
    differ = len({each.answer for each in several}) > 1 or case.task.answer is AnswerKind.NUMBER
    own, *others = [(each.stated if differ else " ".join(each.steps)) or "nothing" for each in several]
    return {"response": own, "samples": others or [own]}


# --- figures --------------------------------------------------------------------------------------------------------


def _auroc(wrong: NDArray[np.bool_], scores: Floats, times: Floats) -> float:
    """How often a wrong one scores above a right one, with rows counted so many times; nan without both kinds."""
    place = np.unique(scores, return_inverse=True)[1]
    bad, good = np.bincount(place, times * wrong), np.bincount(place, times * ~wrong)
    pairs = bad.sum() * good.sum()
    return float((good.cumsum() - good / 2) @ bad / pairs) if pairs else math.nan


def _average_precision(wrong: NDArray[np.bool_], scores: Floats, times: Floats) -> float:
    place = np.unique(-scores, return_inverse=True)[1]
    bad, every = np.bincount(place, times * wrong), np.bincount(place, times)
    return float(bad.cumsum() / every.cumsum().clip(1e-9) @ bad / bad.sum()) if bad.sum() else math.nan


def _recall(wrong: NDArray[np.bool_], risks: Floats, times: Floats, share: float) -> float:
    """Share of the wrong ones among the riskiest, over what is possible."""
    order = np.argsort(-risks, kind="stable")
    before = times[order].cumsum() - times[order]
    taken = (share * times.sum() - before).clip(0, times[order])
    return float(taken @ wrong[order] / (times @ wrong) / min(1.0, share * times.sum() / (times @ wrong)))


def _ece(wrong: NDArray[np.bool_], risks: Floats, times: Floats) -> float:
    """Expected calibration error over ten parts of equal width."""
    part = np.minimum((risks * 10).astype(int), 9)
    return float(np.abs(np.bincount(part, times * (wrong - risks), 10)).sum() / times.sum())


def _first_error_f1(said: Sequence[int | None], first: Sequence[int | None], times: Floats) -> float:
    """ProcessBench's: harmonic mean of the right steps among wrong and the spared among right rationales, times 100."""
    same = np.array([one == other for one, other in zip(said, first, strict=True)])
    wrong = np.array([other is not None for other in first])
    found, spared = ((times * same)[these].sum() / max(1, times[these].sum()) for these in (wrong, ~wrong))
    return float(200 * found * spared / (found + spared)) if found + spared else 0.0


Score = Callable[[NDArray[np.bool_], Floats, Floats], float]
SCORES: Mapping[str, tuple[Score, str]] = {
    "auroc": (_auroc, "AUROC"),
    "average_precision": (_average_precision, "average precision"),
    **{
        f"recall_at_{round(100 * share)}": (partial(_recall, share=share), "of its ceiling")
        for share in (0.1, 0.2, 0.3)
    },
    "ece": (_ece, "share"),
}


def _measured(cell: Row, best: str, times: Floats) -> Row:
    """Every score of one teacher, a mean over the draws of reviewed rows, with rows counted so many times."""
    wrong, risks = cell["_wrong"], cell["_risks"]
    found = {name: _over(risks, partial(score, wrong, times=times)) for name, (score, _) in SCORES.items()}
    peers = {name: _over(each, partial(_auroc, wrong, times=times)) for name, each in cell["_peers"].items()}
    found |= {"gain_best_peer": found["auroc"] - peers[best]}
    if "vote share" in peers:
        found["gain_vote"] = found["auroc"] - peers["vote share"]
    found |= {f"auroc_{_spelled(name)}": value for name, value in peers.items()}
    found |= {f"auroc_without_{name}": _auroc(wrong, each, times) for name, each in cell["_without"].items()}
    lucky = cell["_right"] & wrong
    if cell["_first"] and lucky.sum() >= 5:
        right = times * cell["_right"]
        found["auroc_lucky"] = _over(risks, lambda each: _auroc(wrong, each, right))
        found["average_precision_lucky"] = _over(risks, lambda each: _average_precision(wrong, each, right))
    if cell["_unanimous"].any():
        found["auroc_unanimous"] = _over(risks, lambda each: _auroc(wrong, each, times * cell["_unanimous"]))
    if cell["_first"]:
        found["first_error_f1"] = _over(cell["_said"], lambda said: _first_error_f1(said, cell["_first"], times))
        found["first_error_f1_arithmetic"] = _first_error_f1(cell["_arithmetic"], cell["_first"], times)
    return found


def _over(runs: Sequence[Any], score: Callable[[Any], float]) -> float:
    return float(np.mean([score(run) for run in runs]))


def _spelled(name: str) -> str:
    return name.replace("'", "").replace("-", "_").replace(" ", "_")


def _unit(name: str) -> str:
    if name in SCORES:
        return SCORES[name][1]
    return {"first": "F1 x 100", "average": "average precision"}.get(name.partition("_")[0], "AUROC")


def _figures(cells: Sequence[Row]) -> Row:
    """The figures of one file: means over its teachers, intervals by resampling the dev groups."""
    if not cells:
        return {}
    main = list(cells)
    name, one = main[0]["set"], {id(cell): np.ones(len(cell["_wrong"])) for cell in cells}
    common = sorted(set.intersection(*(set(cell["_peers"]) for cell in main)))
    aurocs = {
        peer: np.mean([_over(c["_peers"][peer], partial(_auroc, c["_wrong"], times=one[id(c)])) for c in main])
        for peer in common
    }
    best = max(common, key=aurocs.__getitem__)
    for cell in cells:
        cell |= {"best_peer": best, **_rounded(_measured(cell, best, one[id(cell)]))}
    groups = sorted({group for cell in main for group in cell["_groups"]})
    chance = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        counts = Counter(chance.choice(len(groups), len(groups)).tolist())
        times = {groups[at]: n for at, n in counts.items()}
        drawn.append(
            [_measured(cell, best, np.array([times.get(each, 0.0) for each in cell["_groups"]])) for cell in main]
        )
    figures = {}
    for score in set.intersection(*(set(each) for each in drawn[0])):
        values = [float(np.nanmean([cell[score] for cell in each])) for each in drawn]
        value, (low, high) = float(np.mean([cell[score] for cell in main])), np.nanquantile(values, [0.025, 0.975])
        figures[f"{score}.{name}"] = figure(value, min(low, value), max(high, value), _unit(score))
    return dict(sorted(figures.items())) | _promised(name, main)


def _rounded(values: Row) -> Row:
    return {name: round(value, 4) for name, value in values.items()}


def _promised(name: str, main: Sequence[Row]) -> Row:
    """How many certificates held; and in how many splits, of teachers that got any, none was broken."""
    covered = [each for cell in main for each in cell["covered"]]
    low, high = np.quantile(covered, [0.025, 0.975])
    mean = float(np.mean(covered))
    found = {f"certified_coverage.{name}": figure(mean, min(float(low), mean), max(float(high), mean), "share")}
    promising = [cell for cell in main if cell["certified"]]
    if promising:
        certified, held = (sum(cell[each] for cell in promising) for each in ("certified", "held"))
        splits = REPEATS * len(promising)
        found[f"promise_held_share.{name}"] = _exact(held, certified, "certificates")
        found[f"promise_unbroken_share.{name}"] = _exact(splits - certified + held, splits, "splits")
    return found


def _exact(held: int, n: int, what: str) -> Row:
    """A share with its one-sided bounds of 95 %."""
    bounds = 1 - clopper_pearson_upper(n - held, n, 0.95), clopper_pearson_upper(held, n, 0.95)
    return figure(held / n, *bounds, f"of {n} {what}")


def _mean(values: Any) -> float:
    return round(float(np.mean(list(values))), 4)


def _show(cells: Sequence[Row]) -> None:
    table = Table(
        "set", "teacher", "others", "n", "wrong", "AUROC", "peers", "recall@30", "ECE", "ms", "held", box=None
    )
    for cell in cells:
        peers = ", ".join(f"{name} {cell['auroc_' + _spelled(name)]:.3f}" for name in cell["_peers"])
        row = [
            cell["set"],
            cell["teacher"],
            cell["others"],
            cell["dev"],
            f"{cell['wrong']:.2f}",
            f"{cell['auroc']:.3f}",
        ]
        row += [peers, f"{cell['recall_at_30']:.2f}", f"{cell['ece']:.3f}", f"{cell['milliseconds']:.1f}"]
        table.add_row(*map(str, row), f"{cell['held']}/{cell['certified']} ({np.mean(cell['covered']):.2f})")
    Console(width=200).print(table)


def _notes(figures: Mapping[str, Row]) -> list[str]:
    """Which goals are missed, and what would move them."""
    missed = [
        f"{name} is {figures[name]['value']:.3g}, short of the goal {goal}: {why}"
        for name, (goal, why) in GOALS.items()
        if name in figures and figures[name]["value"] < goal
    ]
    return [*NOTES, *missed]


def _draw(figures: Mapping[str, Row], file: Path) -> None:
    """Our AUROC and that of every peer, a line a file."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load

    names = [name.split(".")[1] for name in figures if name.startswith("auroc.")]
    drawing = Figure(figsize=(7, 0.42 * len(names) + 1), layout="constrained")
    axes = drawing.subplots()
    for at, name in enumerate(reversed(names)):
        own = figures[f"auroc.{name}"]
        axes.plot([own["low"], own["high"]], [at, at], color="tab:blue", linewidth=2)
        axes.plot(own["value"], at, "o", color="tab:blue", label=None if at else "ours, 95 % interval")
        for peer, (mark, colour) in MARKS.items():
            there = figures.get(f"auroc_{peer}.{name}")
            if there:
                axes.plot(there["value"], at, mark, color=colour, fillstyle="none")
    for peer, (mark, colour) in MARKS.items():
        axes.plot([], [], mark, color=colour, fillstyle="none", label=peer.replace("_", " "))
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel("AUROC for a wrong rationale")
    axes.axvline(0.5, color="0.8", linewidth=1)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    drawing.savefig(file.with_suffix(".auroc.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
