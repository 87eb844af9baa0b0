"""A student is measured on the holdout: its answers, its confidence, its steps, and whether its answers follow them."""

import random
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from connectors import handover, measurements
from connectors.measurements import last_evaluation
from connectors.predicting import predict as predict_file
from connectors.status import status
from connectors.students import answer_question, asked, trained
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind
from loop.calibration import FEWEST, tempered
from loop.config import Config, EvaluationConfig
from loop.records import Checkpoint, Corruption, Evaluation, Harm, Item, Part, Prediction, Split, Stage
from loop.stages.evaluate import evaluate_student
from loop.stages.figures import measured
from loop.stages.measuring import agreement, looked_at_closer, predict, spoil
from loop.stages.parts import Parts
from loop.store import checkpoints, evaluations, items, rounds
from tests.builders import NOON, a_round, an_item
from tests.test_encoder import examples as told
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.test_predict import LABELS, SUMS, lines, written
from tests.tiny import tiny_model
from tests.trained import QUIET, a_trained_project

HELD = 2 * FEWEST


def held(questions: list[str], answers: list[Answer]) -> list[Item]:
    """Holdout items, of each part in turn and in two domains."""
    return [
        an_item(
            f"x{number:02}", Split.HOLDOUT, question=question, part=Part.TEST if number % 2 else Part.DEV,
            answer=answer.canonical, domain="odd" if number % 3 else "even",
        )
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True))
    ]  # fmt: skip


def parts_of(project: Project) -> Parts:
    return Parts(project.trainer(), None, None, QUIET, project.folder / "checkpoints")  # type: ignore[arg-type]


def a_candidate(project: Project) -> Checkpoint:
    """The trained student as one that nobody has measured."""
    row = Checkpoint(run="tiny", folder="round-1", examples=8, created_at=NOON)
    return checkpoints.keep(project.store, row)


def look_at(project: Project, candidate: Checkpoint, config: Config) -> None:
    """Have it answer the holdout, and spoil its rationales."""
    parts = parts_of(project)
    student = cache(lambda: parts.trainer.student(parts.folder / candidate.folder))
    predict(candidate, student, project.store, parts, config, seed=1)
    spoil(candidate, student, project.store, parts, config)


@pytest.fixture(scope="module")
def summing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Checkpoint]:
    """A student of sums that answered its holdout and whose rationales were spoiled."""
    folder = tmp_path_factory.mktemp("sums")
    tiny_model(folder / "model")
    project = a_trained_project(folder, student=SUMS)
    questions = [f"What is {number % 8} + 20 ?" for number in range(HELD)]
    answers = [Answer(kind=AnswerKind.NUMBER, value=str(20 + number % 8 + number // 30)) for number in range(HELD)]
    items.add(project.store, held(questions, answers))
    candidate = a_candidate(project)
    look_at(project, candidate, project.config)
    return project, candidate


@pytest.fixture(scope="module")
def classifying(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Checkpoint]:  # noqa: F811
    """An encoder that answered its holdout."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "model").symlink_to(encoder)
    settings = 'kind = "encoder"\nepochs = 20\nbatch_size = 4\nlearning_rate = 3e-3'
    project = a_trained_project(folder, task=LABELS, student=settings, examples=told())
    chance = random.Random(0)
    words = [chance.choice(["sun burns", "snow falls"]) for _ in range(HELD)]
    answers = [Answer(kind=AnswerKind.LABEL, value="warm" if each == "sun burns" else "cold") for each in words]
    items.add(project.store, held([f"the {each} {place}" for place, each in enumerate(words)], answers))
    candidate = a_candidate(project)
    look_at(project, candidate, project.config)
    return project, candidate


def own(project: Project, candidate: Checkpoint) -> list[Prediction]:
    assert candidate.id is not None
    return [row for row in checkpoints.predictions(project.store, candidate.id) if row.item_key.startswith("x")]


def test_answers_are_kept_with_their_steps_and_how_sure_the_student_was(summing: tuple[Project, Checkpoint]) -> None:
    rows = own(*summing)
    assert len(rows) == HELD
    for row in rows:
        assert row.steps
        assert sum(row.probabilities) == pytest.approx(1)
        assert 0 < row.probabilities[0] < 1


def test_a_few_samples_never_make_certainty() -> None:
    one, other = (Answer(kind=AnswerKind.NUMBER, value=value) for value in "12")
    assert agreement(one, [one, one, one, one]) == pytest.approx([0.84, *[0.04] * 4])
    assert agreement(one, [other, None]) == pytest.approx([1 / 9, 4 / 9, 4 / 9])


def test_figures_are_counted_over_their_rows(summing: tuple[Project, Checkpoint]) -> None:
    project, candidate = summing
    found = measured(candidate, None, project.store, project.config).figures
    rows = checkpoints.predictions(project.store, candidate.id or 0)
    for part in Part:
        correct = [row.correct for row in rows if row.part is part]
        assert found[part.value]["accuracy"] == pytest.approx(sum(correct) / len(correct))
        domains = found[part.value]["domains"]
        assert sum(each["n"] for each in domains.values()) == len(correct)
        assert {"odd", "even"} <= set(domains)
    assert found["rationales"]["written"] == sum(len(row.steps) for row in rows if row.part is Part.DEV)
    assert 0 < found["rationales"]["steps"]["value"] <= 1
    assert found["paired"] is None


def test_wrong_steps_do_not_hold(summing: tuple[Project, Checkpoint]) -> None:
    project, _ = summing
    wrong = a_candidate(project)
    assert wrong.id is not None
    answer = Answer(kind=AnswerKind.NUMBER, value="25").canonical
    steps = {"x00": ["2 + 3 = 5 .", "20 + 5 = 26 ."], "x02": ["20 + 5 = 25 ."]}
    rows = [
        Prediction(
            checkpoint_id=wrong.id, item_key=key, part=Part.DEV, answer=answer, correct=False, steps=some
        )
        for key, some in steps.items()
    ]  # fmt: skip
    checkpoints.keep_predictions(project.store, rows)
    found = measured(wrong, None, project.store, project.config).figures["rationales"]
    assert found["written"] == 3
    assert found["steps"]["value"] < 1
    assert found["whole"]["found"] < 2


def test_the_temperature_is_fitted_on_dev_alone(summing: tuple[Project, Checkpoint]) -> None:
    project, candidate = summing
    before = measured(candidate, None, project.store, project.config)
    assert before.temperature is not None
    assert before.figures["calibration"]["test"]["after"]["n"] == before.figures["calibration"]["test"]["before"]["n"]
    other = a_candidate(project)
    assert other.id is not None
    turned = [
        Prediction(**row.model_dump() | {"checkpoint_id": other.id, "correct": row.correct ^ (row.part is Part.TEST)})
        for row in checkpoints.predictions(project.store, candidate.id or 0)
    ]
    checkpoints.keep_predictions(project.store, turned)
    assert measured(other, None, project.store, project.config).temperature == pytest.approx(before.temperature)


def test_spoiled_rationales_are_kept_once_with_what_followed(summing: tuple[Project, Checkpoint]) -> None:
    project, candidate = summing
    rows = evaluations.corruptions(project.store, candidate.id or 0)
    assert {row.harm for row in rows} >= {Harm.NUMBER, Harm.OTHER}
    dev = {row.item_key: row for row in checkpoints.predictions(project.store, candidate.id or 0, Part.DEV)}
    assert {row.item_key for row in rows} <= set(dev)
    assert all(tuple(row.steps) != tuple(dev[row.item_key].steps) for row in rows)
    look_at(project, candidate, project.config)
    assert len(evaluations.corruptions(project.store, candidate.id or 0)) == len(rows)
    found = measured(candidate, None, project.store, project.config).figures["faithfulness"]
    content = [row for row in rows if row.harm is not Harm.SHUFFLED]
    assert found["changed"]["value"] == pytest.approx(sum(row.changed for row in content) / len(content))
    assert found["harms"]["other"]["n"] == sum(row.harm is Harm.OTHER for row in rows)


def test_an_answer_that_cannot_be_read_any_more_has_changed() -> None:
    row = Corruption(checkpoint_id=1, item_key="x", harm=Harm.WORD, steps=[], before="5", answer=None)
    assert row.changed
    row.answer = "5"
    assert not row.changed


def test_only_so_many_items_are_looked_at_closer_and_the_same_ones_again(summing: tuple[Project, Checkpoint]) -> None:
    project, _ = summing
    holdout = items.of_split(project.store, Split.HOLDOUT)
    few = project.config.model_copy(update={"evaluation": EvaluationConfig(closer_items=3)})
    chosen = looked_at_closer(holdout, few)
    assert len(chosen) == 6
    assert chosen == looked_at_closer(holdout[::-1][::-1], few)
    none = project.config.model_copy(update={"evaluation": EvaluationConfig(closer_items=0)})
    other = a_candidate(project)
    look_at(project, other, none)
    figures = measured(other, None, project.store, none).figures
    assert figures["calibration"]["test"]["before"] is None
    assert figures["faithfulness"] is None


def test_an_encoder_has_macro_f1_and_probabilities_and_no_steps_to_doubt(
    classifying: tuple[Project, Checkpoint],
) -> None:
    project, candidate = classifying
    found = measured(candidate, None, project.store, project.config)
    assert all(len(row.probabilities) == 2 for row in own(project, candidate))
    assert found.figures["test"]["macro_f1"]["n"] >= HELD // 2
    assert found.figures["rationales"] is None
    assert found.figures["faithfulness"] is None
    assert found.temperature is not None


def test_a_round_keeps_what_was_measured_and_status_says_it(classifying: tuple[Project, Checkpoint]) -> None:
    project, candidate = classifying
    store = project.store
    opened = a_round(store, project.config, run="tiny")
    evaluating = rounds.enter(store, opened, Stage.EVALUATE, candidate_id=candidate.id)
    evaluate_student(evaluating, store, parts_of(project), project.config)
    [row] = evaluations.of_run(store, "tiny").values()
    assert row.checkpoint_id == candidate.id
    state = status(store, "tiny", project.config)
    last = state["rounds"][-1]
    assert last["candidate"]["evaluation"]["test"]["n"] == last["candidate"]["n"]
    assert last["candidate"]["evaluation"]["paired"]["against"] == 1
    assert state["rounds"][0]["student"]["evaluation"] is None
    text = "\n".join(last_evaluation(state["rounds"]))
    told = "\n".join(handover._figures(project, replace(trained(project), checkpoint=candidate)))
    for part in ("macro F1 on test", "calibration error on test", "against the student of round 1 on dev", "by domain"):
        assert part in text
        assert part in told
    assert "not measured" not in told
    assert re.search(r"use of the temperature: divide the logits by \d+\.\d{4} before softmax", told)


@pytest.mark.parametrize(("p", "said"), [(0.0321, "p=0.032"), (0.0004, "p<0.001"), (1.0, "p=1.000")])
def test_a_chance_is_never_said_to_be_none(p: float, said: str) -> None:
    part = {"difference": 0.1, "low": 0.0, "high": 0.2, "gained": 3, "lost": 1, "n": 9, "p": p}
    [line] = measurements._paired({"against": 1, "dev": part, "test": None})
    assert line.endswith(f"McNemar {said}")


@pytest.mark.parametrize(
    ("answer", "said"),
    [("choice", "mean log-probability of each one's tokens by 1.5000"), ("number", "share of 4 sampled answers")],
)
def test_a_card_says_what_the_temperature_of_a_student_that_writes_belongs_to(
    answer: str, said: str, summing: tuple[Project, Checkpoint]
) -> None:
    project, _ = summing
    which = trained(project, 1)
    task = which.config.task.model_copy(update={"answer": AnswerKind(answer)})
    assert said in handover._use(replace(which, config=which.config.model_copy(update={"task": task})), 1.5)


def test_probabilities_are_told_at_the_temperature(classifying: tuple[Project, Checkpoint], tmp_path: Path) -> None:
    project, _ = classifying
    which = trained(project, 1)
    file = written(tmp_path / "q.jsonl", [{"key": "a", "question": "the sun burns today"}])
    before = lines(predict_file(project, which, file, tmp_path / "before.jsonl").file)[0]["probability"]
    said = answer_question(project, asked("the sun burns today", which.config.task), which)
    assert said.endswith(f"confidence {before:.2f}, not calibrated)")
    with project.store.writing() as session:
        session.merge(Evaluation(checkpoint_id=which.checkpoint.id or 0, temperature=3.0, figures={}))
    after = lines(predict_file(project, which, file, tmp_path / "after.jsonl").file)[0]["probability"]
    assert after == pytest.approx(max(tempered([before, 1 - before], 3.0)), abs=2e-3)
    assert answer_question(project, asked("the sun burns today", which.config.task), which).endswith(
        f"confidence {after:.2f})"
    )
