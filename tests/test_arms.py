"""Both arms of a campaign: a batch that is chosen anew after the pool changed, and what is compared of each arm."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from connectors.status import status, status_text
from loop import saving
from loop.answer import Answer, AnswerKind
from loop.config import Config, EvaluationConfig, QueryConfig, ReviewConfig, RunConfig
from loop.errors import Diverged
from loop.ports import Example, Explanation, Forced, Progress, Silent, StudentPrediction, Trained
from loop.query.control import control_arm
from loop.records import Arm, Checkpoint, DecisionKind, Item, Query, Round, Stage
from loop.round import advance
from loop.stages.evaluate import compare_arms
from loop.stages.parts import Parts
from loop.stages.select import select_batch
from loop.store import checkpoints, items, rounds, shadows
from loop.store.database import Store
from tests.builders import NOON, RUN, a_holdout, a_reply, a_round, a_store, an_item, decided, id_of, trained
from tests.test_status import shown
from tests.test_training import Told

BATCH = 4


class Written:
    """A student whose answers are a function of item and copy, and that is cut off after so many explanations."""

    def __init__(self, cut_after: int) -> None:
        self.left = cut_after
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def explain(self, items: Sequence[Item], *, copies: Sequence[int], **_: object) -> list[list[Explanation]]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.asked += [(item.key, tuple(copies)) for item in items]
        return [[Explanation(("one",), answer(f"{item.key}/{copy}")) for copy in copies] for item in items]

    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        return [
            [Forced(answer(f"{item.key}/{len(each)}")) for each in some]
            for item, some in zip(items, parts, strict=True)
        ]

    def probabilities(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        return [()] * len(items)

    def embed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        return np.zeros((len(items), 2), dtype=np.float32)

    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        return [StudentPrediction(answer(item.key), Explanation((), answer(item.key))) for item in items]


def answer(text: str) -> Answer:
    return Answer(kind=AnswerKind.NUMBER, value=str(hashlib.sha256(text.encode()).digest()[0] % 3))


class Teaching:
    """A trainer that notes what it is given."""

    def __init__(self, student: Written) -> None:
        self.one, self.taught = student, list[list[Example]]()

    def student(self, folder: Path | None) -> Written:
        return self.one

    def train(self, examples: Sequence[Example], *, folder: Path, **_: object) -> Trained:
        self.taught.append(list(examples))
        folder.mkdir(parents=True)
        return Trained(folder, {})


def parts_of(folder: Path, student: Written, progress: Progress | None = None) -> Parts:
    teacher: Any = SimpleNamespace(price=lambda request, **_: len(str(request)))
    trainer: Any = Teaching(student)
    nobody: Any = None
    return Parts(trainer, teacher, nobody, progress or Silent(), folder)


def a_config(pairs: int = 1, **query: object) -> Config:
    return Config(
        run=RunConfig(name=RUN),
        query=QueryConfig.model_validate(
            {"batch_size": BATCH, "candidates": 3, "samples": 3, "chunk_size": 4, "diversity": 1, **query}
        ),
        review=ReviewConfig(audit_share=0.0),
        evaluation=EvaluationConfig(saving_pairs=pairs),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


# --- choosing the batch anew ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acquisition", "calls"),
    [("explanation_divergence", calls) for calls in (1, 2, 4, 5)] + [("margin", 1), ("margin", 2)],
)
def test_a_batch_is_chosen_after_the_pool_changed_in_mid_scoring(
    acquisition: str, calls: int, store: Store, tmp_path: Path
) -> None:
    config = a_config(acquisition=acquisition)
    items.add(store, [an_item(f"q{number:02}") for number in range(20)])
    trained(store, asked(store, config, {"q00": 0.5}), examples=1, right=0)
    opened = a_round(store, config)
    student = Written(calls)
    with pytest.raises(KeyboardInterrupt):
        select_batch(opened, store, parts_of(tmp_path, student), config)
    items.add(store, [an_item(f"new{number}") for number in range(6)])
    student.left = 999
    chosen = select_batch(opened, store, parts_of(tmp_path, student), config)
    assert chosen.stage is Stage.ASK
    assert len(rounds.queries(store, id_of(opened))) == BATCH
    first = [key for key, copies in student.asked if 0 in copies]
    assert len(first) == len({*first})  # what was scored before the cut is not scored again
    scored = {row.item_key for row in rounds.scores(store, id_of(opened)) if row.parts}
    selected = {query.item_key for query in rounds.queries(store, id_of(opened)) if query.probability is None}
    assert selected <= scored


class Placed(Written):
    """An untrained student: it puts items in five places, by the last digit of their keys, and notes which."""

    def __init__(self) -> None:
        super().__init__(0)
        self.placed: list[str] = []

    def embed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        self.placed += [item.key for item in items]
        return np.eye(5, dtype=np.float32)[[int(item.key[-1]) % 5 for item in items]]


def test_a_batch_covers_the_pool_as_the_untrained_student_sees_it(store: Store, tmp_path: Path) -> None:
    config = a_config(diversity=5, candidates=5)
    items.add(store, [an_item(f"q{number:02}") for number in range(20)])
    trained(store, asked(store, config, {"q00": 0.5, "q01": 0.5}), examples=1, right=0)
    opened, untrained = a_round(store, config), Placed()
    trainer: Any = SimpleNamespace(student=lambda folder: Written(999) if folder else untrained)
    select_batch(opened, store, replace(parts_of(tmp_path, Written(999)), trainer=trainer), config)
    chosen = [query.item_key for query in rounds.queries(store, id_of(opened)) if query.probability is None]
    assert {int(key[-1]) % 5 for key in chosen[:3]} == {2, 3, 4}  # q00 and q01 were asked in the other places
    assert {*chosen, "q00", "q01"} <= {*untrained.placed}


# --- comparing what was asked ---------------------------------------------------------------------------------------


def asked(store: Store, config: Config, picks: Mapping[str, float | None], cost: int = 1000, **kinds: str) -> Round:
    """A round in EVALUATE that asked these items, selected where there is no probability; accepted unless said else."""
    opened = a_round(store, config)
    rows = [
        Query(round_id=id_of(opened), item_key=key, position=place, arm="some", probability=probability)
        for place, (key, probability) in enumerate(picks.items())
    ]
    opened = rounds.enter(store, opened, Stage.ASK, rows)
    for key in picks:
        reply = a_reply(store, opened, key, steps=["one"], answer=1, cost=cost)
        kind = DecisionKind(kinds.get(key, "silver"))
        decided(store, opened, key, kind, reply)
    return rounds.enter(store, opened, Stage.EVALUATE)


def compared(store: Store, folder: Path, opened: Round, config: Config) -> tuple[dict[Arm, Any], list[list[str]]]:
    """The shadow students of the first pair, by arm, and the keys that each student in turn was taught."""
    parts = parts_of(folder, Written(999))
    compare_arms(opened, store, parts, config)
    trainer: Any = parts.trainer
    rows = {row.arm: row for row in shadows.of_round(store, id_of(opened)) if row.pair == 0}
    return rows, [sorted(each.item.key for each in some) for some in trainer.taught]


def ordered(store: Store, count: int = 20) -> list[str]:
    """The keys of a new pool in the order of the control arm."""
    pool = [an_item(f"q{number:02}") for number in range(count)]
    items.add(store, [*pool, *a_holdout(4)])
    return [item.key for item in control_arm([an_item(f"q{number:02}") for number in range(count)], count, 0)]


def test_a_shadow_student_that_fails_keeps_no_candidate_from_the_holdout(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "FEWEST", 1)
    config, order, told = a_config(), ordered(store), Told()
    asked(store, config, dict.fromkeys(order[:4], 0.5))
    opened = asked(store, config, dict.fromkeys(order[9:15]))
    kept = Checkpoint(run=RUN, round_id=id_of(opened), folder="round-2", examples=9, created_at=NOON)
    opened = rounds.enter(store, opened, Stage.EVALUATE, candidate_id=checkpoints.keep(store, kept).id)

    def diverges(*_: object, folder: Path, **__: object) -> Trained:
        raise Diverged(f"the loss is nan in {folder.name}")

    parts = parts_of(tmp_path, Written(999), told)
    monkeypatch.setattr(parts.trainer, "train", diverges)
    closed = advance(opened, store, parts, config)
    assert (closed.stage, closed.student_id) == (Stage.CLOSED, kept.id)
    assert (
        "  saving: nothing further is measured in this round, as a shadow student failed: the loss is nan in shadow"
        in told.lines
    )
    assert saving.saving(shadows.of_round(store, id_of(opened))) is None
    assert closed.unmeasured == "a shadow student failed (Diverged); `run` said how, when it did"


def test_an_item_is_in_each_arm_once_with_all_that_it_cost_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "FEWEST", 1)
    config, order = a_config(), ordered(store)
    asked(store, config, dict.fromkeys(order[:3], 0.5), **{order[0]: "undecided", order[1]: "undecided"})
    again, selected = {order[0]: 0.5}, dict.fromkeys([order[1], order[3], *order[9:15]])
    opened = asked(store, config, again | selected)
    rows, (control, chosen) = compared(store, tmp_path, opened, config)
    assert control == sorted(order[:4])  # the fourth, which selection asked, stands where the order goes on
    assert (rows[Arm.CONTROL].asked, rows[Arm.CONTROL].examples, rows[Arm.CONTROL].micro_usd) == (4, 4, 6000)
    assert {*chosen} <= {*selected}
    assert len(chosen) == rows[Arm.SELECTED].asked == 6  # an item of two rounds cost selection one


def test_what_selection_asked_in_vain_earns_it_nothing_where_the_control_arm_asked_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "FEWEST", 1)
    config, order = a_config(), ordered(store)
    asked(store, config, {order[0]: None, order[7]: None}, **{order[0]: "undecided"})
    opened = asked(store, config, {order[0]: 0.5})
    _, (control, chosen) = compared(store, tmp_path, opened, config)
    assert control == [order[0]]
    assert chosen in ([order[7]], [])


def test_a_free_teacher_is_compared_by_equally_many_items(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "FEWEST", 1)
    config, order = a_config(), ordered(store)
    opened = asked(store, config, dict.fromkeys(order[:3], 0.5) | dict.fromkeys(order[5:16]), cost=0)
    rows, taught = compared(store, tmp_path, opened, config)
    assert [len(some) for some in taught] == [3, 3]
    assert all(row.by_count and row.asked == 3 and row.micro_usd == 0 for row in rows.values())


@pytest.mark.parametrize("cost", [1000, 0])
@pytest.mark.parametrize(("control", "selected", "share"), [(20, 30, "larger"), (30, 20, "smaller")])
def test_no_student_is_trained_unless_all_pairs_can_be_compared_and_the_short_arm_is_to_grow(
    control: int, selected: int, share: str, cost: int, store: Store, tmp_path: Path
) -> None:
    config, order = a_config(pairs=2), ordered(store, 70)
    picks = dict.fromkeys(order[:control], 0.5) | dict.fromkeys(order[35 : 35 + selected])
    rejected = order[0] if control < selected else order[35]
    opened = asked(store, config, picks, cost, **{rejected: "rejected"})
    rows, taught = compared(store, tmp_path, opened, config)
    assert (rows, taught) == ({}, [])
    has = {"larger": (9, 10), "smaller": (10, 9)}[share]
    assert why(store) == (
        "fewer than 10 accepted rationales a student to compare both arms: of 2 parts for the same price the control "
        f"arm's have at least {has[0]}, the selected ones' {has[1]}; further rounds, larger batches, a {share} "
        "query.random_share or fewer evaluation.saving_pairs bring more"
    )


def why(store: Store) -> str:
    """Why the newest round did not measure what selection saves."""
    return rounds.all_rounds(store, RUN)[-1].unmeasured


def test_a_round_says_why_it_did_not_measure_what_selection_saves_and_nothing_where_it_did(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "FEWEST", 1)
    config = a_config()
    items.add(store, [an_item(f"q{number:02}") for number in range(20)])
    order = [item.key for item in control_arm([an_item(f"q{number:02}") for number in range(20)], 20, 0)]
    opened = asked(store, config, dict.fromkeys(order[:4], 0.5))
    compared(store, tmp_path, opened, a_config(pairs=0))
    assert why(store) == "evaluation.saving_pairs = 0"
    compared(store, tmp_path, opened, config)
    assert why(store) == "the holdout has no items in dev; `preceptor ingest FILE --split holdout` takes some in"
    items.add(store, a_holdout(4))
    compared(store, tmp_path, opened, config)
    assert why(store) == "nothing was selected so far: all that was asked is random"
    [missed] = status(store, RUN, config)["rounds"]
    assert (missed["saving"], missed["saving_unmeasured"]) == (None, why(store))
    said = " ".join(shown(status_text(status(store, RUN, config))).split())
    assert f"after round 1, what selection saves was not measured: {why(store)}" in said
    opened = asked(store, config, dict.fromkeys(order[9:15]))
    rows, _ = compared(store, tmp_path, opened, config)
    assert len(rows) == 2
    assert why(store) == ""
    assert status(store, RUN, config)["rounds"][-1]["saving_unmeasured"] is None
    assert "not measured" not in shown(status_text(status(store, RUN, config)))
