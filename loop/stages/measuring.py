"""A checkpoint answers the holdout, says how sure it is, and answers again after its rationales were spoiled."""

import random
from collections.abc import Callable, Mapping, Sequence

from loop import evaluation
from loop.answer import Answer
from loop.checks.corruption import corrupted
from loop.config import Config
from loop.ports import Student, StudentPrediction
from loop.records import Checkpoint, Corruption, Harm, Item, Part, Prediction, Split
from loop.stages.parts import PIECE, Parts
from loop.store import checkpoints, evaluations, items
from loop.store.database import Store

Loaded = Callable[[], Student]
"""The student, loaded when it is first asked for."""


def predict(candidate: Checkpoint, student: Loaded, store: Store, parts: Parts, config: Config, *, seed: int) -> None:
    """Answer the holdout piece by piece; pieces that are stored already are left alone."""
    assert candidate.id is not None
    holdout = items.of_split(store, Split.HOLDOUT)
    done = {row.item_key for row in checkpoints.predictions(store, candidate.id)}
    todo = [item for item in holdout if item.key not in done]
    if not todo:
        return
    closer = looked_at_closer(holdout, config)
    with parts.progress.bar("student answers the holdout", len(todo)) as bar:
        for start in range(0, len(todo), PIECE):
            piece = todo[start : start + PIECE]
            answers = student().predict(piece)
            rows = zip(
                piece,
                answers,
                evaluation.grade(piece, answers),
                _probabilities(piece, answers, student(), config, closer=closer, seed=seed),
                strict=True,
            )
            checkpoints.keep_predictions(
                store,
                [
                    Prediction(
                        checkpoint_id=candidate.id,
                        item_key=item.key,
                        part=item.part or Part.DEV,
                        answer=None if given.answer is None else given.answer.canonical,
                        correct=correct,
                        steps=list(given.explanation.steps),
                        probabilities=probabilities,
                    )
                    for item, given, correct, probabilities in rows
                ],
            )
            bar.advance(len(piece))


def looked_at_closer(holdout: Sequence[Item], config: Config) -> set[str]:
    """The keys of the items of each part that are looked at more closely, the same ones in every round."""
    found: set[str] = set()
    for part in Part:
        own = [item.key for item in holdout if item.part is part]
        size = min(config.evaluation.closer_items, len(own))
        found |= set(random.Random(f"closer/{config.run.seed}").sample(own, size))
    return found


def spoil(candidate: Checkpoint, student: Loaded, store: Store, parts: Parts, config: Config) -> None:
    """Spoil the student's rationales on some items of `dev`, piece by piece, and keep the answers that follow.

    Only of students that write steps and answer after them.
    """
    assert candidate.id is not None
    if config.student.kind == "encoder" or config.student.answers_by != "rationale":
        return
    dev = {item.key: item for item in items.of_split(store, Split.HOLDOUT, Part.DEV)}
    closer = looked_at_closer(list(dev.values()), config)
    done = {row.item_key for row in evaluations.corruptions(store, candidate.id)}
    rows = [row for row in checkpoints.predictions(store, candidate.id, Part.DEV) if row.item_key in closer]
    rows = [row for row in rows if row.steps and row.answer is not None]
    todo = [row for row in rows if row.item_key not in done]
    if not todo:
        return
    with parts.progress.bar("student's rationales are spoiled", len(todo)) as bar:
        for start in range(0, len(todo), PIECE):
            piece = todo[start : start + PIECE]
            spoiled = [_spoiled(row, rows, config.run.seed) for row in piece]
            wanted = [[tuple(row.steps), *some.values()] for row, some in zip(piece, spoiled, strict=True)]
            forced = student().answers_after([dev[row.item_key] for row in piece], wanted)
            answers = [[each.answer for each in some] for some in forced]
            found = zip(piece, spoiled, answers, strict=True)
            evaluations.keep_corruptions(store, [each for row, some, said in found for each in _kept(row, some, said)])
            bar.advance(len(piece))


def _probabilities(
    piece: Sequence[Item],
    answers: Sequence[StudentPrediction],
    student: Student,
    config: Config,
    *,
    closer: set[str],
    seed: int,
) -> list[list[float]]:
    """As `Prediction.probabilities` holds them."""
    direct = student.probabilities(piece)
    if all(direct):
        return [[round(each, 6) for each in shares] for shares in direct]
    query = config.query
    looked = [item.key in closer and given.answer is not None for item, given in zip(piece, answers, strict=True)]
    sampled = iter(
        student.explain(
            [item for item, wanted in zip(piece, looked, strict=True) if wanted],
            copies=range(1, query.samples + 1),
            temperature=query.temperature,
            top_p=query.top_p,
            seed=seed,
        )
    )
    return [
        agreement(given.answer, [each.answer for each in next(sampled)]) if wanted else []
        for given, wanted in zip(answers, looked, strict=True)
    ]


def agreement(given: Answer | None, sampled: Sequence[Answer | None]) -> list[float]:
    """The share of samples that end in the given answer, then equal shares of as many others as were sampled.

    One sample more is shared out among all of these, as a few settle nothing.
    """
    others = len(sampled)
    own = (sum(each == given for each in sampled) + 1 / (others + 1)) / (others + 1)
    return [own, *[(1 - own) / others] * others]


def _spoiled(row: Prediction, rows: Sequence[Prediction], seed: int) -> dict[Harm, tuple[str, ...]]:
    others = [other.steps for other in rows if other.answer != row.answer]
    return corrupted(row.steps, others, chance=random.Random(f"spoil/{seed}/{row.item_key}"))


def _kept(
    row: Prediction, spoiled: Mapping[Harm, tuple[str, ...]], answers: Sequence[Answer | None]
) -> list[Corruption]:
    """What followed each spoiled rationale, where an answer follows the whole one."""
    whole, *after = answers
    if whole is None:
        return []
    return [
        Corruption(
            checkpoint_id=row.checkpoint_id,
            item_key=row.item_key,
            harm=harm,
            steps=list(steps),
            before=whole.canonical,
            answer=None if answer is None else answer.canonical,
        )
        for (harm, steps), answer in zip(spoiled.items(), after, strict=True)
    ]
