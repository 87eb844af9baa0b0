"""Full-width signs, Japanese numerals and percent words are read as the digits that they mean, and words stay words."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.answer import AnswerKind, parse_answer, split_rationale, split_steps
from loop.plain import plain


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("１２＋３＝１５", "12+3=15"),
        ("（１，２００円）", "(1,200 円)"),
        ("3万5千円", "35000 円"),
        ("1.5万人", "15000 人"),
        ("二百五十", "250"),
        ("五百円", "500 円"),
        ("二〇二四年", "2024 年"),
        ("十二個", "12 個"),
        ("5億3000万", "530000000"),
        ("２割引き", "20% 引き"),
        ("3割5分", "35%"),
        ("五十パーセント", "50%"),
        ("十分間", "10 分間"),
        ("5² m⁻¹", "5^2 m^-1"),
        ("1½", "1 1/2"),
        ("①5+3", "(1) 5+3"),
    ],
)
def test_signs_and_numerals_become_the_keyboards(text: str, meant: str) -> None:
    assert plain(text) == meant


@pytest.mark.parametrize(
    "text", ["万一", "千葉", "百科事典", "一方", "十分に", "一般", "割合", "七五三", "I've 3/4", "π"]
)
def test_words_stay_words(text: str) -> None:
    assert plain(text) == text


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    plain(text)


@pytest.mark.parametrize("text", ["九" * 100_000, "三万" * 50_000, "1" * 100_000 + "万", "³" * 100_000, "割" * 100_000])
def test_no_text_holds_it_up(text: str) -> None:
    started = time.process_time()
    plain(text)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("答えは１２個です。", AnswerKind.NUMBER, "12"),
        ("3万5千円", AnswerKind.NUMBER, "35000"),
        ("（Ｂ）", AnswerKind.CHOICE, "B"),
        ("答えはBです。", AnswerKind.CHOICE, "B"),
        ("猫です。", AnswerKind.CHOICE, "B"),
        ("矛盾です。", AnswerKind.LABEL, "矛盾"),
        ("中立ではなく矛盾です。", AnswerKind.LABEL, "矛盾"),
        ("12 m²", AnswerKind.NUMBER, "12"),
    ],
)
def test_japanese_answers_are_understood(text: str, kind: AnswerKind, value: str) -> None:
    found = parse_answer(text, kind, choices=["犬", "猫"], labels=["含意", "中立", "矛盾"])
    assert found is not None
    assert found.value == value


def test_japanese_answers_that_say_two_things_say_none() -> None:
    assert parse_answer("中立か矛盾", AnswerKind.LABEL, labels=["含意", "中立", "矛盾"]) is None


def test_japanese_steps_end_at_their_full_stop_and_may_be_numbered() -> None:
    assert split_steps("りんごは5個あります。3個もらいました。合計8個です。") == [
        "りんごは5個あります。",
        "3個もらいました。",
        "合計8個です。",
    ]
    assert split_steps("1．りんごは5個\n２．3個もらう\n③ 合計8個") == ["りんごは5個", "3個もらう", "合計8個"]


@pytest.mark.parametrize("end", ["Answer: 8", "答え：8", "答えは8"])
def test_a_japanese_rationale_may_end_in_its_own_words(end: str) -> None:
    assert split_rationale(f"5個あります。\n3個もらいました。\n{end}") == (["5個あります。", "3個もらいました。"], "8")


def test_an_answer_spoken_of_in_between_is_not_the_answer() -> None:
    assert split_rationale("答えは10より大きい。\n5個ある。")[1] is None
