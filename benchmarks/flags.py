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
import json
import math
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from benchmarks.kept import ROOT, figure, write
from connectors.progress import RichProgress
from connectors.wiring import cache_folder
from loop.answer import AnswerKind, parse_answer, split_steps
from loop.certificate import certified_threshold
from loop.checks.arithmetic import wrong_equations
from loop.checks.doubt import Doubtful
from loop.checks.flag import doubts
from loop.checks.learn import Judged, Learned, learn
from loop.checks.risk import evidence
from loop.config import ChecksConfig, StudentConfig, TaskConfig
from loop.interval import clopper_pearson_upper, wilson
from loop.ports import Example
from loop.records import Author, Item, Rationale, Split
from loop.report import calibration

SOURCES = [
    "benchmarks/flags.py",
    "loop/certificate.py",
    *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "loop" / "checks").glob("*.py")),
]
REVIEWS = 300
ALPHA, DELTA = 0.05, 0.10
THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
REPEATS = 200
RESAMPLES = 1000
FEWEST_OTHERS = 3
"""Other teachers that are no stronger, below which a teacher of a file with several is reported apart."""
POOL = 2000
"""Rationales that nobody judged, from which the reader learns what is usual."""
STUDENT_ROWS = 1000
"""Labelled rows from which on a student is trained."""
Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A rationale with what people or the right answer say of it."""

    key: str
    doubtful: Doubtful
    wrong: bool
    answer_right: bool
    first_error: int | None
    nll: float | None


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
    parser.add_argument("--seeds", type=int, default=3, help="draws of the reviewed rows")
    parser.add_argument("--quick", action="store_true", help="SVAMP alone")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    files = [file for given in chosen.data for file in _files(given)]
    if chosen.quick:
        files = [file for file in files if file.name.startswith("svamp")]
    figures: Row = {}
    cells: list[Row] = []
    for file in files:
        found = [cell for world in worlds(file) for cell in [_cell(world, chosen.reviews, chosen.seeds)] if cell]
        cells += found
        figures |= _figures(found)
        _show(found)
        settings = {
            "reviews": chosen.reviews,
            "seeds": chosen.seeds,
            "alpha": ALPHA,
            "delta": DELTA,
            "promises": REPEATS,
            "verdicts": "the file's marks, not people at work",
            "interval": "95 % bootstrap over dev items",
        }
        kept = [{name: value for name, value in cell.items() if not name.startswith("_")} for cell in cells]
        write(chosen.json, "flags", settings=settings, figures=figures, sources=SOURCES, cells=kept)


def _files(given: Path) -> list[Path]:
    if given.is_file():
        return [given]
    return sorted([*given.glob("rationales/*.jsonl.gz"), *given.glob("marks/*.jsonl.gz")])


# --- worlds ---------------------------------------------------------------------------------------------------------


def worlds(file: Path) -> list[World]:
    """One world for each teacher of a file; a file with people's marks is one world."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows: list[Row] = [json.loads(line) for line in lines]
    name = file.name.removesuffix(".jsonl.gz")
    marked = any(row.get("rationale_ok") is not None for row in rows)
    task = _task(rows)
    if marked:
        rows = [
            row | {"teacher": [row["teacher"][0] | {"model": "any"}]} for row in rows if row["rationale_ok"] is not None
        ]
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row["split"] == "train":
            for model, said in _said(row).items():
                right[model].append(bool(said["correct"]))
    strength = {model: float(np.mean(each)) for model, each in right.items()}
    found = []
    for model in sorted(strength):
        weaker = sorted(other for other in strength if other != model and strength[other] <= strength[model])
        cases: dict[str, list[Case]] = {"train": [], "dev": []}
        for row in rows:
            if model in _said(row):
                cases[row["split"]].append(_case(row, model, weaker, task, marked=marked))
        found.append(World(name, model, len(weaker), task.answer, cases["train"], cases["dev"]))
    return found


def _said(row: Row) -> dict[str, Row]:
    """What each teacher said; of several runs of a model the first."""
    return {said["model"]: said for said in reversed(row["teacher"])}


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


def _case(row: Row, model: str, weaker: Sequence[str], task: TaskConfig, *, marked: bool) -> Case:
    said = _said(row)
    item = Item(
        key=str(row["id"]),
        question=row["question"],
        choices=list(row["choices"] or ()) if task.answer is AnswerKind.CHOICE else [],
        split=Split.POOL,
        text_hash="",
    )
    marks = [mark["step"] for mark in row.get("step_labels") or ()] if marked and "first_error" in row else []
    own = _rationale(said[model], 0, marks, item, task)
    others = [_rationale(said[each], at, [], item, task) for at, each in enumerate(weaker, start=1) if each in said]
    wrong = not row["rationale_ok"] if marked else not said[model]["correct"]
    return Case(
        key=item.key,
        doubtful=Doubtful(item, own, task, others),
        wrong=bool(wrong),
        answer_right=bool(said[model]["correct"]),
        first_error=row.get("first_error"),
        nll=said[model].get("nll"),
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


# --- one world ------------------------------------------------------------------------------------------------------


def _cell(world: World, reviews: int, seeds: int) -> Row | None:
    """Everything that is measured of one teacher; None where dev has fewer than five of a kind."""
    wrong = np.array([case.wrong for case in world.dev])
    if not 5 <= wrong.sum() <= len(wrong) - 5 or sum(case.wrong for case in world.train) < 5:
        return None
    world = _with_student(world)
    runs = [_ours(world, reviews, seed) for seed in range(seeds)]
    peers = _peers(world, reviews, seeds)
    cell: Row = {
        "set": world.name,
        "teacher": world.teacher,
        "others": world.others,
        "dev": len(wrong),
        "wrong": round(float(wrong.mean()), 3),
        "auroc": _mean(_auroc(wrong, run["risk"]) for run in runs),
        "average_precision": _mean(average_precision_score(wrong, run["risk"]) for run in runs),
        "peers": {name: _mean(_auroc(wrong, scores) for scores in each) for name, each in peers.items()},
        "milliseconds": _mean(run["milliseconds"] for run in runs),
        "ece": _mean(_ece(run["risk"], wrong) for run in runs),
        "_wrong": wrong,
        "_keys": [case.key for case in world.dev],
        "_risks": [run["risk"] for run in runs],
        "_peers": peers,
    }
    for share in (0.1, 0.2, 0.3):
        cell[f"recall_at_{round(100 * share)}"] = _mean(_recall(wrong, run["risk"], share) for run in runs)
    lucky = np.array([case.answer_right for case in world.dev]) & wrong
    if any(case.first_error is not None for case in world.dev) and lucky.sum() >= 5:
        some = np.array([case.answer_right for case in world.dev])
        cell["auroc_answer_right"] = _mean(_auroc(wrong[some], run["risk"][some]) for run in runs)
        cell["answer_right_and_a_step_wrong"] = int(lucky.sum())
    if any(case.first_error is not None for case in world.dev):
        first = [case.first_error for case in world.dev]
        cell["first_error_f1"] = _mean(_first_error_f1(run["said"], first) for run in runs)
        cell["peers_first_error_f1"] = {"arithmetic check": _first_error_f1(runs[0]["arithmetic"], first)}
        cell["_said"], cell["_first"] = [run["said"] for run in runs], first
    cell |= _promise(world, reviews)
    return cell


def _ours(world: World, reviews: int, seed: int) -> Row:
    """The risk of every dev rationale by what a campaign would do: checks, a reader, a risk fitted on the verdicts."""
    reviewed, pool = _drawn(world, reviews, seed)
    learned = learn(_judged(reviewed), pool, seed=seed)
    started = time.process_time()
    risks = [_risk(case, learned) for case in world.dev]
    spent = time.process_time() - started
    return {
        "risk": np.array(risks),
        "milliseconds": 1000 * spent / len(risks),
        "said": [learned.first_error and learned.first_error.first_error(case.doubtful) for case in world.dev],
        "arithmetic": [
            min(
                (doubt.step for doubt in wrong_equations(case.doubtful, CHECKS) if doubt.step is not None), default=None
            )
            for case in world.dev
        ],
    }


def _risk(case: Case, learned: Learned) -> float:
    return learned.risk(evidence(doubts(learned.knows(case.doubtful), CHECKS)))


def _judged(reviewed: Sequence[Case]) -> list[Judged]:
    """What a reviewer would have said; of files where steps are marked also of the steps."""
    marked = any(case.first_error is not None for case in reviewed)
    return [
        Judged(
            case.doubtful,
            evidence(doubts(case.doubtful, CHECKS)),
            case.wrong,
            steps=marked and (not case.wrong or case.first_error is not None),
            first_error=case.first_error,
        )
        for case in reviewed
    ]


CHECKS = ChecksConfig()


def _drawn(world: World, reviews: int, seed: int) -> tuple[list[Case], list[Doubtful]]:
    """The reviewed rows, and those of the others that are looked at without verdicts."""
    order = np.random.default_rng(seed).permutation(len(world.train))
    reviewed = [world.train[at] for at in order[:reviews]]
    return reviewed, [world.train[at].doubtful for at in order[reviews : reviews + POOL]]


def _with_student(world: World) -> World:
    """The world with what a student, trained on the teacher's labels of other rows, thinks of each item."""
    if world.kind is not AnswerKind.LABEL or len(world.train) < STUDENT_ROWS or world.name.startswith("fse_"):
        return world
    order = np.random.default_rng(0).permutation(len(world.train))
    halves = [order[0::2], order[1::2]]
    shares: dict[str, list[Sequence[float]]] = defaultdict(list)
    for half, other in (halves, halves[::-1]):
        student = _trained([world.train[at] for at in half])
        for some in ([world.train[at] for at in other], world.dev):
            for case, each in zip(some, student([case.doubtful.item for case in some]), strict=True):
                shares[case.key].append(each)
    known = {key: tuple(np.mean(each, axis=0)) for key, each in shares.items()}

    def seen(case: Case) -> Case:
        return replace(case, doubtful=replace(case.doubtful, probabilities=lambda: known[case.key]))

    return replace(world, train=[seen(case) for case in world.train], dev=[seen(case) for case in world.dev])


def _trained(cases: Sequence[Case]) -> Callable[[Sequence[Item]], list[tuple[float, ...]]]:
    """The encoder student, trained on the labels that the teacher gave."""
    from loop.student.trainer import EncoderTrainer  # noqa: PLC0415 - the other files need no torch

    config = StudentConfig(
        kind="encoder", model="all-minilm-l6-v2", epochs=4, learning_rate=1e-4, batch_size=16, answers_by="answer"
    )
    trainer = EncoderTrainer(config, cases[0].doubtful.task, cache_folder())
    examples = [
        Example(item=case.doubtful.item, steps=(), answer=answer)
        for case in cases
        if (answer := case.doubtful.rationale.parsed) is not None
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student"
        trainer.train(examples, seed=0, folder=path, progress=RichProgress(Console(quiet=True)))
        return trainer.student(path).probabilities


def _promise(world: World, reviews: int) -> Row:
    """How often a certified threshold kept its promise, over fresh splits of all rows into fit, audit and the rest.

    The model is fitted once on the reviewed train rows; these are left out of the splits.
    """
    reviewed, pool = _drawn(world, min(reviews, len(world.train) // 2), 0)
    learned = learn(_judged(reviewed), pool, seed=0)
    taken = {case.key for case in reviewed}
    fresh = [case for case in (*world.train, *world.dev) if case.key not in taken][:3000]
    risks = np.array([_risk(case, learned) for case in fresh])
    wrong = np.array([case.wrong for case in fresh])
    chance = np.random.default_rng(0)
    held, covered = [], []
    audits = min(300, len(fresh) // 3)
    for _ in range(REPEATS):
        order = chance.permutation(len(fresh))
        audit, rest = order[:audits], order[audits:]
        threshold = certified_threshold(
            THRESHOLDS, list(zip(risks[audit], wrong[audit].tolist(), strict=True)), alpha=ALPHA, delta=DELTA
        )
        below = rest[risks[rest] < threshold] if threshold is not None else rest[:0]
        covered.append(len(below) / len(rest))
        if len(below):
            held.append(bool(wrong[below].mean() <= ALPHA))
    return {
        "promises": REPEATS,
        "certified": len(held),
        "held": sum(held),
        "covered": [round(each, 4) for each in covered],
        "audits": audits,
    }


# --- peers ----------------------------------------------------------------------------------------------------------


def _peers(world: World, reviews: int, seeds: int) -> dict[str, list[Floats]]:
    """What each peer says of the dev rows, once for each draw of reviewed rows that it needs."""
    dev = [case.doubtful for case in world.dev]
    found: dict[str, list[Floats]] = {}
    if world.others:
        found["vote share"] = [np.array([_vote_share(case) for case in dev])]
        found["semantic entropy"] = [np.array([_entropy(case) for case in dev])]
        found["n-gram"] = [np.array([_ngram(case) for case in dev])]
    if world.dev[0].nll is not None:
        found["teacher's nll"] = [np.array([case.nll or 0.0 for case in world.dev])]
    if world.kind is AnswerKind.LABEL and not world.name.startswith("fse_"):
        found |= _label_peers(world)
    found["words"] = [_word_regression(world, reviews, seed) for seed in range(seeds)]
    return found


def _vote_share(case: Doubtful) -> float:
    """Share of the other teachers' answers that differ."""
    return float(np.mean([each.answer != case.rationale.answer or each.answer is None for each in case.siblings]))


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

    cases = [case for case in (*world.train, *world.dev) if case.doubtful.rationale.parsed is not None]
    given = np.array([case.doubtful.rationale.parsed.value for case in cases if case.doubtful.rationale.parsed])
    if min(Counter(given).values()) < 5:
        return {}
    texts = [case.doubtful.item.text for case in cases]
    student = make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    shares = cross_val_predict(student, texts, given, cv=folds, method="predict_proba")
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


# --- figures --------------------------------------------------------------------------------------------------------


def _auroc(wrong: NDArray[np.bool_], scores: Floats) -> float:
    return float(roc_auc_score(wrong, scores))


def _first_error_f1(said: Sequence[int | None], first: Sequence[int | None]) -> float:
    """ProcessBench's: harmonic mean of the right steps among wrong and the spared among right rationales, times 100."""
    found = [one == other for one, other in zip(said, first, strict=True) if other is not None]
    spared = [one is None for one, other in zip(said, first, strict=True) if other is None]
    both = (float(np.mean(found)) if found else 0.0, float(np.mean(spared)) if spared else 0.0)
    return round(200 * both[0] * both[1] / sum(both), 2) if sum(both) else 0.0


def _recall(wrong: NDArray[np.bool_], risks: Floats, share: float) -> float:
    """Share of the wrong ones among the riskiest, over what is possible."""
    chosen = np.argsort(-risks, kind="stable")[: math.ceil(share * len(risks))]
    return float(wrong[chosen].sum() / wrong.sum() / min(1.0, share / wrong.mean()))


def _ece(risks: Floats, wrong: NDArray[np.bool_]) -> float:
    found = calibration(risks.tolist(), wrong.tolist())
    assert found is not None
    return found.error


def _mean(values: Any) -> float:
    return round(float(np.mean(list(values))), 4)


def _figures(cells: Sequence[Row]) -> Row:
    """The figures of one file: means over its teachers, intervals by resampling the dev items."""
    main = [cell for cell in cells if cell["others"] >= FEWEST_OTHERS] or list(cells)
    if not main:
        return {}
    name = main[0]["set"]
    common = set.intersection(*(set(cell["peers"]) for cell in main))
    best = max(common, key=lambda peer: np.mean([cell["peers"][peer] for cell in main]))
    keys = sorted({key for cell in main for key in cell["_keys"]})
    chance = np.random.default_rng(0)
    drawn: list[tuple[float, ...]] = [_scores(main, best, None)]
    for _ in range(RESAMPLES):
        counts = Counter(chance.choice(len(keys), len(keys)).tolist())
        drawn.append(_scores(main, best, {keys[at]: n for at, n in counts.items()}))
    low, high = np.nanquantile(np.array(drawn[1:]), [0.025, 0.975], axis=0)
    names = ("auroc", "gain_best_peer", "recall_at_30", "ece")
    figures = {
        f"{each}.{name}": figure(drawn[0][at], min(low[at], drawn[0][at]), max(high[at], drawn[0][at]), unit)
        for at, (each, unit) in enumerate(zip(names, ("AUROC", "AUROC", "of its ceiling", "share"), strict=True))
    }
    if "_said" in main[0]:
        first, said = (
            np.array(main[0]["_first"], dtype=object),
            [np.array(each, dtype=object) for each in main[0]["_said"]],
        )
        draws = [chance.integers(len(first), size=len(first)) for _ in range(RESAMPLES)]
        drawn_f1 = [float(np.mean([_first_error_f1(each[rows], first[rows]) for each in said])) for rows in draws]
        bounds = np.quantile(drawn_f1, [0.025, 0.975])
        figures[f"first_error_f1.{name}"] = figure(main[0]["first_error_f1"], *map(float, bounds), "F1 x 100")
    certified, held = sum(cell["certified"] for cell in main), sum(cell["held"] for cell in main)
    covered = [each for cell in main for each in cell["covered"]]
    if certified:
        bounds = wilson(held, certified)
        figures[f"promise_held_share.{name}"] = figure(held / certified, *bounds, f"of {certified} certificates")
    spread = np.quantile(covered, [0.025, 0.975])
    figures[f"certified_coverage.{name}"] = figure(
        float(np.mean(covered)),
        min(float(spread[0]), np.mean(covered)),
        max(float(spread[1]), np.mean(covered)),
        "share",
    )
    for cell in main:
        cell["best_peer"] = best
        cell["promise_broken"] = bool(cell["certified"]) and _upper(cell["held"], cell["certified"]) < 1 - DELTA
    return figures


def _upper(held: int, n: int) -> float:
    return clopper_pearson_upper(held, n, 0.95)


def _scores(cells: Sequence[Row], peer: str, counts: Mapping[str, int] | None) -> tuple[float, ...]:
    """AUROC, its gain over the peer, recall at 30 % and ECE on resampled items, each a mean over teachers and seeds."""
    found = []
    for cell in cells:
        times = np.array([1 if counts is None else counts.get(key, 0) for key in cell["_keys"]])
        rows = np.repeat(np.arange(len(times)), times)
        wrong = cell["_wrong"][rows]
        if not 0 < wrong.sum() < len(wrong):
            continue
        ours = float(np.mean([_auroc(wrong, risk[rows]) for risk in cell["_risks"]]))
        theirs = float(np.mean([_auroc(wrong, scores[rows]) for scores in cell["_peers"][peer]]))
        recall = float(np.mean([_recall(wrong, risk[rows], 0.3) for risk in cell["_risks"]]))
        error = float(np.mean([_quick_ece(risk[rows], wrong) for risk in cell["_risks"]]))
        found.append((ours, ours - theirs, recall, error))
    return tuple(np.mean(found, axis=0)) if found else (math.nan,) * 4


def _quick_ece(risks: Floats, wrong: NDArray[np.bool_]) -> float:
    part = np.minimum((risks * 5).astype(int), 4)
    return float(np.abs(np.bincount(part, wrong - risks, 5)).sum() / len(risks))


def _show(cells: Sequence[Row]) -> None:
    table = Table(
        "set", "teacher", "others", "n", "wrong", "AUROC", "peers", "recall@30", "ECE", "ms", "held", box=None
    )
    for cell in cells:
        peers = ", ".join(f"{name} {value:.3f}" for name, value in cell["peers"].items())
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


if __name__ == "__main__":
    main()
