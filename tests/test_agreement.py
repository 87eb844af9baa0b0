"""How far reviewers agree: textbook values, properties, and what is said where nothing can be measured."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from loop.records import ADJUDICATION, SECOND, Author, Rationale, Verdict, VerdictKind
from review.agreement import ANSWER, MARKS, VERDICT, Agreement, Measure, Unit, alpha, cohen, fleiss, questions
from review.consensus import consensus
from tests.builders import NOON, a_number

LABELS = "abc"
TABLES = st.lists(st.lists(st.sampled_from([*LABELS, ""]), min_size=2, max_size=4), min_size=2, max_size=12)


def units(*reviewers: str) -> list[Unit]:
    """A row a reviewer, a column an item; `.` is missing."""
    columns = zip(*reviewers, strict=True)
    return [
        Unit(str(item), {str(who): label for who, label in enumerate(column) if label != "."})
        for item, column in enumerate(columns)
    ]


def of_table(table: list[list[str]]) -> list[Unit]:
    return [
        Unit(str(item), {str(who): label for who, label in enumerate(row) if label}) for item, row in enumerate(table)
    ]


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
        ((".....34121133.3", "1.21334 3.......".replace(" ", ""), "..21344.211 33.4".replace(" ", "")), 0.691),
        (("aabbdcccedda", "babbbcccedd d".replace(" ", "")), 0.692),
    ],
)
def test_alpha_is_that_of_the_textbook(said: tuple[str, ...], value: float) -> None:
    found = alpha("verdict", units(*said))
    assert found.value == pytest.approx(value, abs=0.0006)
    assert found.low is not None
    assert found.high is not None
    assert found.low < value < found.high


@given(TABLES, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_alpha_does_not_depend_on_the_order_of_items_reviewers_or_labels(
    table: list[list[str]], chance: object
) -> None:
    assert hasattr(chance, "shuffle")
    before = alpha("q", of_table(table)).value
    renamed = [[{"a": "z", "b": "y", "c": "x"}.get(label, "") for label in row] for row in table]
    width = max(len(row) for row in table)
    seats = list(range(width))
    chance.shuffle(seats)
    padded = [[*row, *[""] * (width - len(row))] for row in renamed]
    mixed = [[row[seat] for seat in seats] for row in padded]
    chance.shuffle(mixed)
    after = alpha("q", of_table(mixed)).value
    assert (before is None) == (after is None)
    assert before is None or math.isclose(before, after or 0.0, abs_tol=1e-9)


@given(st.lists(st.sampled_from(LABELS), min_size=2, max_size=20), st.integers(2, 5))
@settings(deadline=None, max_examples=25)
def test_perfect_agreement_is_1_where_labels_vary_and_undefined_where_they_do_not(said: list[str], people: int) -> None:
    every = units(*["".join(said)] * people)
    for found in (alpha("q", every), fleiss("q", every), cohen("q", every, ("0", "1"))):
        if len(set(said)) > 1:
            assert found.value == pytest.approx(1.0)
            assert found.high == 1.0
            assert found.low is not None
            assert found.low < 1.0
        else:
            assert found.value is None
            assert (found.low, found.high) == (None, None)
            assert "everybody said" in found.why


def test_random_verdicts_agree_no_more_than_by_chance() -> None:
    chance = np.random.default_rng(0)
    said = ["".join(chance.choice(list(LABELS), 2000)) for _ in range(3)]
    for found in (alpha("q", units(*said)), fleiss("q", units(*said)), cohen("q", units(*said), ("0", "1"))):
        assert abs(found.value or 1.0) < 0.05
        assert found.low is not None
        assert found.high is not None
        assert found.low < 0 < found.high


@given(TABLES)
@settings(deadline=None, max_examples=25)
def test_what_is_not_defined_is_none_and_says_why(table: list[list[str]]) -> None:
    every = of_table(table)
    for found in (alpha("q", every), fleiss("q", every), cohen("q", every, ("0", "1"))):
        values = [found.value, found.low, found.high]
        assert all(each is None or math.isfinite(each) for each in values)
        assert (found.value is None) == bool(found.why)


def test_one_reviewer_agrees_with_nobody() -> None:
    found = alpha("verdict", units("abc"))
    assert (found.value, found.n, found.why) == (None, 0, "no two reviewers judged the same")


def test_cohens_kappa_is_scikit_learns() -> None:
    first, second = "aabbccabca", "aabbcbabcc"
    found = cohen("verdict", units(first, second), ("0", "1"))
    assert found.value == pytest.approx(cohen_kappa_score([*first], [*second]))
    assert found.between == ("0", "1")


def test_fleiss_counts_only_units_with_the_commonest_number_of_verdicts() -> None:
    found = fleiss("verdict", units("aabbab", "aabaab", "abbb.."))
    assert (found.measure, found.n) == (Measure.FLEISS, 4)


def test_the_same_seed_gives_the_same_interval() -> None:
    every = units("aabbccab", "aabbcbaa")
    assert alpha("q", every, seed=3) == alpha("q", every, seed=3)


def test_intervals_hold_the_true_agreement_about_as_often_as_they_say() -> None:
    # two reviewers who each err on 15 % of two equally frequent labels agree 2 * (0.745) - 1 = 0.49 beyond chance
    chance, held = np.random.default_rng(5), 0
    for seed in range(100):
        truth = chance.random(60) < 0.5
        said = ["".join("ab"[int(each)] for each in truth ^ (chance.random(60) < 0.15)) for _ in range(2)]
        found = alpha("q", units(*said), seed=seed)
        held += (found.low or 0) <= 0.49 <= (found.high or 0)
    assert held >= 88


def test_steps_of_one_rationale_are_drawn_together() -> None:
    apart = [Unit(str(number), {"0": "ab"[number % 2], "1": "ab"[number % 2 ^ (number < 8)]}) for number in range(40)]
    together = [Unit(str(number // 8), each.said) for number, each in enumerate(apart)]
    lone, joint = alpha("q", apart), alpha("q", together)
    assert lone.value == joint.value
    assert width(joint) > width(lone)


def width(found: Agreement) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


# --- from verdicts to questions --------------------------------------------------------------------------------------


def a_said(rationale: int, who: str, kind: VerdictKind, slot: int = 0, minute: int = 0, **fields: object) -> Verdict:
    return Verdict(
        board="fake", project=str(slot), annotation=f"{rationale}/{who}", updated_at=f"2026-01-01T12:{minute:02}:00.0Z",
        rationale_id=rationale, slot=slot, reviewer=who, kind=kind, raw={}, pulled_at=NOON, **fields,
    )  # fmt: skip


def a_rationale(number: int, steps: int = 2) -> Rationale:
    return Rationale(
        id=number, item_key=f"q{number}", round_id=1, author=Author.TEACHER, steps=["so"] * steps, answer=a_number(2)
    )


def test_each_question_of_the_page_is_asked_of_the_verdicts() -> None:
    verdicts = [
        a_said(1, "ann", VerdictKind.ACCEPT),
        a_said(1, "ben", VerdictKind.EDIT, SECOND, answer=a_number(3), marks={"1": "wrong"}),
    ]
    found = questions(verdicts, [a_rationale(1)])
    assert found[VERDICT] == [Unit("1", {"ann": "accept", "ben": "edit"})]
    assert found[ANSWER] == [Unit("1", {"ann": a_number(2), "ben": a_number(3)})]
    assert found["step 1"] == [Unit("1", {"ann": "ok", "ben": "ok"})]
    assert found["step 2"] == [Unit("1", {"ann": "ok", "ben": "wrong"})]
    assert len(found[MARKS]) == 2


def test_who_adjudicates_and_who_judges_twice_is_no_second_voice() -> None:
    verdicts = [
        a_said(1, "ann", VerdictKind.ACCEPT, minute=1),
        a_said(1, "ann", VerdictKind.REJECT, SECOND, minute=2),
        a_said(1, "cy", VerdictKind.EDIT, ADJUDICATION, minute=3),
    ]
    assert questions(verdicts, [a_rationale(1)])[VERDICT] == [Unit("1", {"ann": "reject"})]


def test_a_reject_without_a_mark_says_nothing_of_steps_or_answer() -> None:
    found = questions([a_said(1, "ann", VerdictKind.REJECT)], [a_rationale(1)])
    assert found[ANSWER] == found["step 1"] == [Unit("1", {})]


# --- consensus -------------------------------------------------------------------------------------------------------


def test_the_consensus_finds_the_truth_and_who_errs_on_it() -> None:
    chance = np.random.default_rng(1)
    truth = [*chance.choice(["accept", "edit"], 150)]

    def say(error: float) -> list[str]:
        return [each if chance.random() > error else {"accept": "edit", "edit": "accept"}[each] for each in truth]

    said = {"ann": say(0.05), "ben": say(0.1), "cy": say(0.1), "stamp": ["accept"] * 150}
    found = consensus([Unit(str(at), {who: own[at] for who, own in said.items()}) for at in range(150)])
    assert found is not None
    assert found.n == 150
    assert sum(found.truth[str(at)] == truth[at] for at in range(150)) >= 138
    assert found.confusion["stamp"]["edit"]["accept"] == pytest.approx(1.0, abs=0.01)
    assert found.confusion["ann"]["edit"]["edit"] > 0.88


def test_there_is_no_consensus_without_two_reviewers_or_two_labels() -> None:
    assert consensus(units("aab")) is None
    assert consensus(units("aaa", "aaa")) is None
