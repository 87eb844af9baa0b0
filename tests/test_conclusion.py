"""What states the final answer is taken out of steps before anybody judges them; what leads to it stays."""

import time

import pytest

from loop.answer import AnswerKind, parse_answer
from loop.teacher.conclusion import without_conclusion

LABELS = ("entailment", "neutral", "contradiction")
WATERS = ("fresh water", "salt water", "acid")


def left(kind: AnswerKind, stated: str, *steps: str) -> list[str]:
    choices = WATERS if kind is AnswerKind.CHOICE else ()
    return without_conclusion(steps, parse_answer(stated, kind, choices=choices, labels=LABELS), stated, choices)


@pytest.mark.parametrize(
    ("stated", "step"),
    [
        ("5", "So the answer is 5."), ("5", "Therefore the final answer is: 5"), ("5", "Answer: 5"),
        ("5", "So, she has 5 apples left."), ("5", "Hence 5."), ("5", "したがって答えは5です。"),
        ("1,200", "Thus she pays $1,200."), ("-3.5", "So it is -3.5 degrees."),
        ("5", "A: 5"), ("5", "#### 5"), ("5", "5"), ("5", "Final answer: 5."), ("1200", "1,200"),
        ("1/2", "So it is 1/2."),
    ],
)  # fmt: skip
def test_a_last_step_that_only_states_the_number_is_not_judged(stated: str, step: str) -> None:
    assert left(AnswerKind.NUMBER, stated, "8 - 3 = 5", step) == ["8 - 3 = 5", ""]


@pytest.mark.parametrize(
    ("step", "rest"),
    [
        ("8 - 3 = 5, so the answer is 5.", "8 - 3 = 5"),
        ("8 - 3 = 5 so she has 5 left.", "8 - 3 = 5"),
        ("We add 2 + 3 = 5. The answer is 5.", "We add 2 + 3 = 5."),
        ("The answer is 5 because 8 - 3 = 5.", "because 8 - 3 = 5."),
        ("So she has 8 - 3 = 5 left.", "So she has 8 - 3 = 5 left."),
        ("So the answer is 8 - 3 = 5.", "So the answer is 8 - 3 = 5."),
        ("Solution: 10% of 50 = 5", "Solution: 10% of 50 = 5"),
        ("The answer = 5", ""),
        ("So the answer is 5 + 0 = 5.", "So the answer is 5 + 0 = 5."),
        ("x = 5", "x = 5"),
        ("They are 5 people.", "They are 5 people."),
        ("8 - 3 = 5", "8 - 3 = 5"),
        ("She has 8 and loses 3.", "She has 8 and loses 3."),
    ],
)
def test_the_computation_stays(step: str, rest: str) -> None:
    assert left(AnswerKind.NUMBER, "5", step) == [rest]


@pytest.mark.parametrize(
    ("stated", "step", "rest"),
    [
        ("contradiction", "A sleeping man cannot run, so it is a contradiction.", "A sleeping man cannot run"),
        ("contradiction", "A sleeping man cannot run, which is a contradiction.", "A sleeping man cannot run"),
        ("neutral", "His age is not told. The relation is neutral.", "His age is not told."),
        ("neutral", "It is not entailment, so neutral", "It is not entailment"),
        ("neutral", "neutral", ""),
        ("neutral", "Neutral, because his age is not told.", "because his age is not told."),
    ],
)
def test_the_label_at_the_end_is_not_shown(stated: str, step: str, rest: str) -> None:
    assert left(AnswerKind.LABEL, stated, step) == [rest]


@pytest.mark.parametrize(
    ("stated", "step", "rest"),
    [
        ("B", "The sea is not sweet. Option B is correct.", "The sea is not sweet."),
        ("(B) salt water", "So the answer is (B) salt water.", ""),
        ("B", "Reefs live in the sea, therefore salt water.", "Reefs live in the sea"),
        ("B", "B is the correct answer because reefs live in the sea.", "because reefs live in the sea."),
        ("A", "Reefs need a home.", "Reefs need a home."),
        ("B", "Option A is wrong because acid burns.", "Option A is wrong because acid burns."),
    ],
)
def test_the_choice_at_the_end_is_not_shown(stated: str, step: str, rest: str) -> None:
    assert left(AnswerKind.CHOICE, stated, step) == [rest]


def test_an_answer_announced_in_the_first_step_is_not_shown_either() -> None:
    steps = ("The answer is zanzibar-7.", "The log names it.", "So the answer is zanzibar-7.")
    assert left(AnswerKind.TEXT, "zanzibar-7", *steps) == ["", "The log names it.", ""]


def test_a_date_that_is_the_answer_is_no_computation() -> None:
    assert left(AnswerKind.TEXT, "05/01/2021", "Today is 05/01/2021.", "So the answer is 05/01/2021.")[1] == ""


@pytest.mark.parametrize(
    "text",
    ["the " * 50_000, "so " * 50_000, " " * 200_000, ",; " * 70_000, "answer of " + "x " * 100_000, "(B) is " * 30_000,
     "the answer is " * 20_000, "a. " * 70_000, "1 " * 100_000, "答えは" * 30_000],
)  # fmt: skip
def test_no_text_holds_it_up(text: str) -> None:
    started = time.process_time()
    left(AnswerKind.CHOICE, "B", text, text)
    assert time.process_time() - started < 5
