"""What verdicts teach: which rationales are wrong, which votes to believe, where to look first."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from loop.checks import first_error, reader
from loop.checks.doubt import Doubtful
from loop.checks.features import features
from loop.checks.flag import doubts
from loop.checks.learn import Judged, learn
from loop.checks.reader import Background
from loop.checks.risk import evidence
from loop.checks.votes import posterior, reliabilities
from loop.config import ChecksConfig
from tests.builders import an_item
from tests.test_checks import HOSTILE, LABEL, NUMBER, a_rationale


def a_case(number: int, steps: Sequence[str], answer: str = "5", siblings: Sequence[str] = ()) -> Doubtful:
    item = an_item(f"q{number}", question=f"Ann has {number} pens and buys 3. How many?")
    others = [a_rationale(["so"], each, NUMBER, item, at) for at, each in enumerate(siblings, start=1)]
    return Doubtful(item, a_rationale(steps, answer, NUMBER, item), NUMBER, others)


def a_world(n: int, seed: int) -> tuple[list[Doubtful], list[bool]]:
    """Wrong rationales leave out the item's number and hedge more often."""
    chance = random.Random(seed)
    wrong = [chance.random() < 0.4 for _ in range(n)]
    cases = [
        a_case(
            at,
            [f"she has {at if not bad or chance.random() < 0.3 else 7} and 3", "maybe" if bad and at % 2 else "then"],
        )
        for at, bad in enumerate(wrong)
    ]
    return cases, wrong


def test_a_reader_finds_what_reviewers_found() -> None:
    cases, wrong = a_world(200, seed=0)
    fresh, truth = a_world(300, seed=1)
    model = reader.fit(cases, wrong, Background(cases, seed=0), seed=0)
    assert model is not None
    assert roc_auc_score(truth, model(fresh)) > 0.8
    share, why = model.explained(fresh[truth.index(True)])
    assert why
    assert share == pytest.approx(model([fresh[truth.index(True)]])[0])


def test_cross_fitting_leaks_no_verdict() -> None:
    cases, _ = a_world(300, seed=2)
    chance = np.random.default_rng(0).random(300) < 0.4
    found = reader.cross_fitted(cases, chance.tolist(), Background(cases, seed=0), seed=0)
    assert found is not None
    assert roc_auc_score(chance, found) < 0.6


def test_same_seed_same_reader() -> None:
    cases, wrong = a_world(60, seed=3)
    one, two = (reader.fit(cases, wrong, Background(cases, seed=1), seed=1) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one(cases).tolist() == two(cases).tolist()


@pytest.mark.parametrize("wrong", [[True] * 30, [False] * 30, [True, False] * 5, []])
def test_too_few_verdicts_teach_no_reader(wrong: list[bool]) -> None:
    cases = [a_case(at, ["so"]) for at in range(len(wrong))]
    assert reader.fit(cases, wrong, Background(cases, seed=0), seed=0) is None


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_the_counts(text: str) -> None:
    counts = features(a_case(1, [text, text], text, [text]))
    assert all(np.isfinite(value) for value in counts.values())


def test_a_voter_who_is_always_alone_is_believed_less() -> None:
    votes = [{0: "a", 1: "a", 2: "a" if at % 3 else "b", 3: f"x{at}"} for at in range(30)]
    right = reliabilities(votes)
    assert right[3] < 0.1 < right[2] < right[0]
    likely = posterior({0: "a", 3: "b"}, right)
    assert likely["a"] > 0.8
    assert likely["b"] < 0.1
    assert sum(likely.values()) < 1


def test_votes_that_cannot_be_read_say_nothing_for_any_answer() -> None:
    assert posterior({0: None, 1: None}, {}) == {}


def a_label(number: int, label: str, **fields: Any) -> Doubtful:
    item = an_item(f"l{number}", question=f"a dog runs {number} times", context="Premise: a dog runs")
    return Doubtful(item, a_rationale(["so"], label, LABEL, item), LABEL, **fields)


def test_the_same_answer_on_items_of_one_context_is_counted() -> None:
    same, other = a_label(1, "neutral", probabilities=lambda: (0.1, 0.8, 0.1)), a_label(2, "entailment")
    counts = features(a_label(0, "neutral", beside=[same, other], probabilities=lambda: (0.5, 0.2, 0.3)))
    assert counts["same answer in the same context"] == 0.5
    assert counts["student believes"] == pytest.approx(np.log(0.2 / 0.8))
    assert counts["student believes those with the same answer"] == pytest.approx(np.log(0.8 / 0.2))
    assert "same answer in the same context" not in features(a_label(0, "neutral"))


def test_meanings_are_compared_where_vectors_are_there() -> None:
    case = a_case(1, ["far away"], siblings=["5"])
    vectors = {"far away": [0.0, 1.0], "so": [0.6, 0.8]}
    embed = lambda texts: np.array([vectors.get(text, [1.0, 0.0]) for text in texts], dtype=np.float32)  # noqa: E731
    counts = features(replace(case, embed=embed))
    assert counts["nearness to the item"] == 0
    assert counts["nearness to other samples"] == pytest.approx(0.8)


def test_each_sample_has_a_vote_of_its_own_and_a_confidence_to_compare_with() -> None:
    case = a_case(1, ["so"], siblings=["5", "6"])
    for sure, each in zip((0.5, 0.9, 0.9), (case.rationale, *case.siblings), strict=True):
        each.confidence = sure
    counts = features(case)
    assert (counts["sample 1 agrees"], counts["sample 2 agrees"]) == (1, -1)
    assert counts["confidence above other samples"] == pytest.approx(-np.log(9))


def steps_of(bad: int | None) -> list[str]:
    return [f"{at + 2} + 3 = {at + 5 + (at == bad)}" for at in range(4)]


def a_marked_world(n: int, seed: int) -> tuple[list[Doubtful], list[int | None]]:
    chance = random.Random(seed)
    first = [chance.randrange(4) if chance.random() < 0.5 else None for _ in range(n)]
    return [a_case(at, steps_of(bad)) for at, bad in enumerate(first)], first


def test_the_first_wrong_step_is_found_after_some_marks() -> None:
    cases, first = a_marked_world(80, seed=0)
    fresh, truth = a_marked_world(60, seed=1)
    model = first_error.fit(cases, first, seed=0)
    assert model is not None
    said = [model.first_error(case) for case in fresh]
    assert np.mean([one == other for one, other in zip(said, truth, strict=True)]) > 0.9
    assert model.steps(fresh[0]).shape == (4,)
    assert model.steps(a_case(0, [])).shape == (1,)


def test_what_is_learned_reaches_the_risk_and_names_the_step() -> None:
    cases, first = a_marked_world(80, seed=0)
    judged = [
        Judged(case, evidence(doubts(case, ChecksConfig())), at is not None, steps=True, first_error=at)
        for case, at in zip(cases, first, strict=True)
    ]
    learned = learn(judged, [], seed=0)
    assert learned.risk.reviewed == 80
    assert {"reader", "first_error", "arithmetic"} <= learned.risk.weights.keys()
    bad, good = (doubts(learned.knows(a_case(99, steps_of(at))), ChecksConfig()) for at in (2, None))
    assert learned.risk(evidence(bad)) > 0.8
    assert learned.risk(evidence(good)) < 0.2
    assert {doubt.step for doubt in bad if doubt.check in ("arithmetic", "first_error")} == {2}


def test_without_verdicts_nothing_is_learned() -> None:
    learned = learn([], [a_case(1, ["so"])], seed=0)
    assert (learned.reader, learned.first_error, learned.risk.reviewed) == (None, None, 0)


def test_the_label_that_is_unusual_for_its_item_is_counted() -> None:
    cases = []
    for at in range(60):
        item = an_item(f"l{at}", question="a dog runs" if at % 2 else "nobody sleeps")
        label = ("entailment" if at % 2 else "contradiction") if at else "entailment"
        cases.append(Doubtful(item, a_rationale(["so"], label, LABEL, item), LABEL))
    counts = Background(cases, seed=0).counts(cases)
    assert counts[0]["answer usual for the item"] < counts[2]["answer usual for the item"]
