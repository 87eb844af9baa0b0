"""Answers are read from every usual form, written so that they are read back, and no text breaks the reader."""

import json
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.answer import (
    LONGEST_ANSWER,
    TRIGGER,
    Answer,
    AnswerKind,
    number_steps,
    parse_answer,
    shown,
    split_rationale,
    split_steps,
)

CHOICES = ["a dog", "the cat", "hot dog", "I am"]
LABELS = ["entailment", "neutral", "contradiction", "card_arrival"]
TEXTS = st.text(max_size=300) | st.text(alphabet="0123456789.,-+/*=()$%xXeE \n\u2212½٣", max_size=300)


def number(text: str) -> str | None:
    answer = parse_answer(text, AnswerKind.NUMBER)
    return None if answer is None else answer.value


def choice(text: str) -> str | None:
    answer = parse_answer(text, AnswerKind.CHOICE, choices=CHOICES)
    return None if answer is None else answer.value


def label(text: str) -> str | None:
    answer = parse_answer(text, AnswerKind.LABEL, labels=LABELS)
    return None if answer is None else answer.value


def spans(text: str) -> str | None:
    answer = parse_answer(text, AnswerKind.SPANS)
    return None if answer is None else answer.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", "12"),
        ("-3", "-3"),
        ("\u22124", "-4"),
        ("+5", "5"),
        ("minus 5", "-5"),
        ("x = -3", "-3"),
        ("(-3)", "-3"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("$18.00", "18"),
        ("USD 500", "500"),
        ("0.10", "0.1"),
        (".5", "0.5"),
        ("00012", "12"),
        ("-0", "0"),
        ("12.", "12"),
        ("**12**", "12"),
        ("50%", "50"),
        ("1,234.50 dollars", "1234.5"),
        ("12 500", "12500"),
        ("1,00,000", "100000"),
        ("3,4", "4"),
        ("1.5e3", "1500"),
        ("1e-2", "0.01"),
        ("7/3", "7/3"),
        ("-7/3", "-7/3"),
        ("3/4 cup", "0.75"),
        ("85 / 100", "0.85"),
        ("1 1/2", "1.5"),
        ("5 / 2.5", "2"),
        (r"\frac{7}{3}", "7/3"),
        (r"\boxed{30}", "30"),
        ("48 + 60 = 108", "108"),
        ("6 = 2 * 3", "6"),
        ("18 cm^2", "18"),
        ("5 m2", "5"),
        ("60 km/h", "60"),
        ("The answer is 18.", "18"),
        ("values 4 and -3", "-3"),
        ("COVID-19", "19"),
    ],
)
def test_a_number_is_read(text: str, value: str) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "abc", "nan", "inf", "5/0", "10 - 3", "3-5", "5 x 3", "5 \u00d7 3", "4 + -3", "10 apples - 3", "$5 - $3",
     "2^3", "1/2/2024", "12:30", "3:4", "x = 10 - 3", "9" * 5000, "1e99", "٣"],
)  # fmt: skip
def test_a_text_that_states_no_number_has_none(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("[B]", "B"),
        ("B.", "B"),
        ("(B) the cat", "B"),
        ("B) the cat", "B"),
        ("B the cat", "B"),
        ("C: hot dog", "C"),
        ("the cat", "B"),
        ("Cat.", "B"),
        ("dog", "A"),
        ("Hot dog", "C"),
        ("A", "A"),
        ("The answer is B", "B"),
        ("The answer is a cat", "B"),
        ("answer: (c)", "C"),
        ("Option C", "C"),
        ("The correct choice is (C).", "C"),
        ("It is the cat.", "B"),
        ("I think it is a hot dog", "C"),
    ],
)
def test_a_choice_is_named_by_letter_or_text(text: str, letter: str) -> None:
    assert choice(text) == letter


@pytest.mark.parametrize(
    "text", ["", "E", "(B) the dog", "(A) the cat", "(B) or (C)", "not the cat", "a bird", "the cat or the hot dog"]
)
def test_a_choice_that_is_unclear_is_none(text: str) -> None:
    assert choice(text) is None


def test_the_first_of_two_equal_choices_is_meant() -> None:
    answer = parse_answer("12", AnswerKind.CHOICE, choices=["10", "12", "12"])
    assert answer is not None
    assert answer.value == "B"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("neutral", "neutral"),
        ("Neutral.", "neutral"),
        ("**entailment**", "entailment"),
        ("The answer is neutral", "neutral"),
        ("it is not neutral but contradiction", "contradiction"),
        ("card arrival", "card_arrival"),
        ("Card-Arrival", "card_arrival"),
        ("neutral or entailment", None),
        ("not entailment", None),
        ("neutrality", None),
        ("", None),
    ],
)
def test_a_label_is_the_only_one_that_is_named(text: str, value: str | None) -> None:
    assert label(text) == value


def test_a_label_within_a_longer_one_is_not_named() -> None:
    answer = parse_answer("It is not spam.", AnswerKind.LABEL, labels=["spam", "not spam"])
    assert answer is not None
    assert answer.value == "not spam"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0-3:PER", "0-3:PER"),
        ("10-12:X; 2-3:Y", "2-3:Y;10-12:X"),
        ("0 - 3 : PER;0-3:PER", "0-3:PER"),
        ("none", ""),
        ("3-1:X", None),
        ("3-3:X", None),
        ("0-3:PER; 4", None),
        ("; ;", None),
    ],
)
def test_spans_are_sorted_marks(text: str, value: str | None) -> None:
    assert spans(text) == value


@given(st.fractions(max_denominator=10**6, min_value=-(10**12), max_value=10**12))
def test_a_number_that_was_written_is_read_back(value: Fraction) -> None:
    answer = parse_answer(str(value), AnswerKind.NUMBER)
    assert answer is not None
    assert Fraction(answer.value) == value
    assert parse_answer(shown(answer), AnswerKind.NUMBER) == answer


@given(TEXTS, st.sampled_from(list(AnswerKind)))
@settings(max_examples=300, deadline=1000)
def test_whatever_is_read_is_read_back_from_its_shown_form(text: str, kind: AnswerKind) -> None:
    answer = parse_answer(text, kind, choices=CHOICES, labels=LABELS)
    if answer is not None:
        assert parse_answer(shown(answer, CHOICES), kind, choices=CHOICES, labels=LABELS) == answer
        assert Answer.from_canonical(answer.canonical) == answer
        assert json.loads(answer.canonical)["kind"] == kind


@pytest.mark.parametrize("position", range(26))
def test_each_letter_names_its_own_choice(position: int) -> None:
    letter = chr(ord("A") + position)
    answer = parse_answer(f"({letter.lower()})", AnswerKind.CHOICE, choices=[f"number {each}" for each in range(26)])
    assert answer is not None
    assert answer.value == letter


@pytest.mark.parametrize("kind", list(AnswerKind))
@pytest.mark.parametrize(
    "text", ["(" * 10_000, "1 " * 5_000, "-" * 10_000, "1/" * 900, "a " * 900, "(A" * 900, "9**9**9", "\x00", "\ud800"]
)
def test_hostile_text_is_read_in_no_time(text: str, kind: AnswerKind) -> None:
    started = time.perf_counter()
    parse_answer(text, kind, choices=CHOICES, labels=LABELS)
    parse_answer(text[:LONGEST_ANSWER], kind, choices=CHOICES, labels=LABELS)
    assert time.perf_counter() - started < 1


def test_steps_are_numbered_lines_or_sentences() -> None:
    assert split_steps("1. 2 + 3 = 5\n2) 5 is asked\nStep 3: done") == ["2 + 3 = 5", "5 is asked", "done"]
    assert split_steps("He has 2.5 apples. She eats 1. They have 1.5 left.") == [
        "He has 2.5 apples.",
        "She eats 1.",
        "They have 1.5 left.",
    ]
    assert split_steps("  \n ") == []


@given(st.lists(st.from_regex(r"\A[a-z][a-z0-9 .,=+]{0,30}[a-z]\Z"), min_size=1, max_size=8))
def test_numbered_steps_are_split_again(steps: list[str]) -> None:
    clean = [" ".join(step.split()) for step in steps]
    assert split_steps(number_steps(clean)) == clean


def test_a_rationale_ends_with_its_last_answer() -> None:
    text = f"1. {TRIGGER} stands here\n2. so\n{TRIGGER} 5\nmore"
    assert split_rationale(text) == ([f"{TRIGGER} stands here", "so"], "5")
    assert split_rationale("1. one\n2. two") == (["one", "two"], None)
    assert split_rationale(f"1. one\n{TRIGGER}") == (["one"], "")


@given(TEXTS)
@settings(max_examples=200, deadline=1000)
def test_no_text_breaks_the_splitting(text: str) -> None:
    steps, stated = split_rationale(text)
    assert all(step.strip() for step in steps)
    assert (stated is None) == (TRIGGER not in text)
