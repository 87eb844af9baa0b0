"""What is said of a checkpoint, from its stored answers to the holdout and what followed its spoiled rationales."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loop import evaluation
from loop.answer import Answer, AnswerKind, place_of, spans_of
from loop.calibration import FEWEST, Belief, calibration, confidences, fit_temperature
from loop.checks.flag import SHOWN, Doubtful, doubts
from loop.config import Config
from loop.interval import share
from loop.records import Author, Checkpoint, Corruption, Evaluation, Harm, Item, Part, Prediction, Rationale, Split
from loop.store import checkpoints, evaluations, items
from loop.store.database import Store

CONTENT = frozenset({Harm.NUMBER, Harm.WORD, Harm.OTHER})
"""What changes what a rationale says; an answer that rests on it changes too. Another order need not matter."""


def measured(candidate: Checkpoint, before: Checkpoint | None, store: Store, config: Config) -> Evaluation:
    """Everything that is said of a checkpoint, from its predictions and corruptions; `before` was in force so far."""
    assert candidate.id is not None
    holdout = {item.key: item for item in items.of_split(store, Split.HOLDOUT)}
    rows = {part: checkpoints.predictions(store, candidate.id, part) for part in Part}
    beliefs = {part: _beliefs(own, holdout, config) for part, own in rows.items()}
    temperature = fit_temperature(beliefs[Part.DEV])
    return Evaluation(
        checkpoint_id=candidate.id,
        temperature=temperature,
        figures={
            **{part.value: _figures(own, holdout, config) for part, own in rows.items()},
            "calibration": _calibrations(beliefs, temperature),
            "rationales": _rationales(rows[Part.DEV], holdout, config),
            "faithfulness": _faithfulness(evaluations.corruptions(store, candidate.id)),
            "paired": _paired(candidate, before, store, config),
        },
    )


def _beliefs(rows: Sequence[Prediction], holdout: Mapping[str, Item], config: Config) -> list[Belief]:
    """How sure the student was of each answer that can be read."""
    found = []
    for row in rows:
        gold = holdout[row.item_key].gold
        if not row.probabilities or row.answer is None or gold is None or gold.kind is not config.task.answer:
            continue
        answer = Answer.from_canonical(row.answer)
        if answer.kind in (AnswerKind.LABEL, AnswerKind.CHOICE):
            given, right = (place_of(each, config.task.labels) for each in (answer, gold))
            found.append(Belief(row.probabilities, given, right))
        else:
            found.append(Belief(row.probabilities, 0, 0 if row.correct else 1))
    return found


def _figures(rows: Sequence[Prediction], holdout: Mapping[str, Item], config: Config) -> dict[str, Any]:
    """How good the answers on one part of the holdout are."""
    correct = [row.correct for row in rows]
    found: dict[str, Any] = {
        **evaluation.figures(correct),
        "domains": evaluation.by_domain([holdout[row.item_key].domain for row in rows], correct),
    }
    known = [(row, gold) for row in rows if (gold := holdout[row.item_key].gold) is not None]
    given = [None if row.answer is None else Answer.from_canonical(row.answer) for row, _ in known]
    if config.task.answer is AnswerKind.LABEL:
        labels = [None if each is None else each.value for each in given]
        found["macro_f1"] = _plain(evaluation.macro_f1([gold.value for _, gold in known], labels))
    if config.task.answer is AnswerKind.SPANS:
        true = [spans_of(gold) for _, gold in known]
        told = [frozenset() if each is None else spans_of(each) for each in given]
        for name, overlap in (("span_f1", False), ("span_f1_overlap", True)):
            found[name] = _plain(evaluation.span_f1(true, told, overlap=overlap))
    return found


def _calibrations(beliefs: Mapping[Part, Sequence[Belief]], temperature: float | None) -> dict[str, Any]:
    """The error of the confidence on each part, as it is and at the fitted temperature."""
    found: dict[str, Any] = {"temperature": temperature, "fitted_on": len(beliefs[Part.DEV]), "fewest": FEWEST}
    for part, own in beliefs.items():
        right = [each.is_right for each in own]
        found[part.value] = {
            "before": _plain(calibration(confidences(own), right)),
            "after": None if temperature is None else _plain(calibration(confidences(own, temperature), right)),
        }
    return found


def _rationales(rows: Sequence[Prediction], holdout: Mapping[str, Item], config: Config) -> dict[str, Any] | None:
    """Which of the student's steps on `dev` hold by the checks that need nobody else, and which of its rationales do.

    None where it writes no steps.
    """
    written = [row for row in rows if row.steps] if config.student.kind != "encoder" else []
    if not written:
        return None
    steps, whole = [], []
    for row in written:
        own = Rationale(item_key=row.item_key, round_id=0, author=Author.STUDENT, steps=row.steps, answer=row.answer)
        raised = doubts(Doubtful(holdout[row.item_key], own, config.task), config.checks)
        shown = [each for each in raised if each.weight >= SHOWN]
        doubted = {each.step for each in shown}
        steps.append([place not in doubted for place in range(len(row.steps))])
        whole.append(not shown)
    return {
        "steps": _plain(evaluation.mean_share(steps)),
        "written": sum(map(len, steps)),
        "whole": _plain(share(whole)),
    }


def _faithfulness(rows: Sequence[Corruption]) -> dict[str, Any] | None:
    """How often the answer changes where what the rationale says was changed, and of each harm by itself."""
    if not rows:
        return None
    by_item: dict[str, list[bool]] = {}
    for row in rows:
        if row.harm in CONTENT:
            by_item.setdefault(row.item_key, []).append(row.changed)
    harms = {harm.value: _plain(share(row.changed for row in rows if row.harm is harm)) for harm in Harm}
    return {"changed": _plain(evaluation.mean_share(list(by_item.values()))), "harms": harms}


def _paired(candidate: Checkpoint, before: Checkpoint | None, store: Store, config: Config) -> dict[str, Any] | None:
    """The student against the one that was in force until now; None where there was none."""
    if before is None or before.id is None or candidate.id is None:
        return None
    found: dict[str, Any] = {"against": before.id}
    for part in Part:
        old, new = (
            {row.item_key: row.correct for row in checkpoints.predictions(store, number, part)}
            for number in (before.id, candidate.id)
        )
        found[part.value] = evaluation.paired(old, new, config.evaluation.gate_level)
    return found


def _plain(found: Any) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
