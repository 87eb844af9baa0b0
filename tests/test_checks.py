"""Each check doubts what is wrong, leaves alone what is right, and is broken or held up by no text."""

import gc
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.answer import Answer, AnswerKind, parse_answer
from loop.checks import neighbours
from loop.checks.flag import CHECKS, Doubt, Doubtful, check_set, doubts
from loop.checks.risk import risk
from loop.config import ChecksConfig, TaskConfig
from loop.ports import Forced
from loop.records import Author, Item, Rationale
from loop.stages.checking import is_shown
from tests.builders import an_item

NUMBER = TaskConfig()
LABEL = TaskConfig(answer=AnswerKind.LABEL, labels={"entailment": "", "neutral": "", "contradiction": ""})
CHOICE = TaskConfig(answer=AnswerKind.CHOICE)
TEXT = TaskConfig(answer=AnswerKind.TEXT)
PAINTING = "Three friends had 48 brushes; half of them broke, and 25% of the rest cost $1,200 at 7:30."
HOSTILE = [
    "9**9**9 = 1", "(" * 10_000, "(" * 5_000 + "=" + ")" * 5_000, "=" * 10_000, "1=" * 5_000, "1+" * 5_000 + "=5",
    "(1+" * 3_000 + "=5", "- " * 5_000 + "= 1", "1 a " * 2_500 + "= 2", "$" * 9_000 + "1+1=3", "1 of " * 2_000,
    "nan + inf = 3", "1/0 = 3", "\u0663+\u0664 = 5", "\u00b2 + \u2075 = 9", "1^1^1^1 = 2", "9" * 9_000 + " + 1 = 2",
    "9" * 18 + "^20 * " + "9" * 18 + "^20 = 1", "1 + 1 = 3 " * 1_000, "1/7+" * 2_000 + "1 = 2", "\\frac{" * 2_000,
    "50% of " * 1_500 + "2 = 3", "x" * 10_000, "three " * 2_000, "\x00", "\ud800", "1,000" * 2_000, "1 1/2 " * 1_500,
    "**" * 5_000, " " * 10_000 + "= 1", "not neutral " * 900, "twenty-" * 1_500,
]  # fmt: skip


def a_rationale(steps: Sequence[str], answer: str | None, task: TaskConfig, item: Item, sample: int = 0) -> Rationale:
    parsed = parse_answer(answer or "", task.answer, choices=item.choices, labels=task.labels)
    return Rationale(
        item_key=item.key, round_id=1, author=Author.TEACHER, sample=sample, steps=list(steps),
        answer=None if parsed is None else parsed.canonical, stated=answer or "",
    )  # fmt: skip


def raised(
    check: str,
    steps: Sequence[str],
    answer: str | None = "5",
    *,
    task: TaskConfig = NUMBER,
    item: Item | None = None,
    siblings: Sequence[str] = (),
    student: dict[str, Any] | None = None,
) -> list[Doubt]:
    item = item or an_item(question="How many?")
    others = [a_rationale(["so"], each, task, item, number) for number, each in enumerate(siblings, start=1)]
    doubtful = Doubtful(item, a_rationale(steps, answer, task, item), task, others, student)
    return doubts(doubtful, ChecksConfig(enabled=(check,)))


def canonical(*values: str | None) -> list[str | None]:
    return [None if each is None else Answer(kind=AnswerKind.NUMBER, value=each).canonical for each in values]


# --- arithmetic -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("48 + 60 = 118 muffins.", "108"),
        ("She has 3 x 4 = 12 apples and 12 - 5 = 8 left.", "7"),
        ("So she sells (16 - 7) * $2 = $6 worth.", "18"),
        ("25% of 48 is 13.", "12"),
        ("1/3 of 12 is 5", "4"),
        ("3/4 of the 12 apples = 8 apples", "9"),
        ("1,200 - 200 = 1,100", "1000"),
        ("350 000 x 2 = 600 000", "700000"),
        ("20 - 5 - 5 = 20", "10"),
        ("10 = 5 + 4", "9"),
        ("2 + 3 = 5 = 4 + 2", "6"),
        ("10 / 3 = 3.4", "3.3333"),
        ("$1.25 * 3 = $3.76", "3.75"),
        ("60 miles/hour * 2 hours = 130 miles", "120"),
        ("9 * $2 = $<<9*2=19>>19", "18"),
        (r"So \(18 - 6 = 13\) are left", "12"),
        (r"\frac{1}{3} \times 18 = 7", "6"),
        ("3 plus 4 equals 8", "7"),
        ("12 divided by 4 is equal to 4", "3"),
        ("2^10 = 1000", "1024"),
        ("100% - 25% = 70%", "0.75"),
        ("-3 + 5 = 8", "2"),
        ("5 + 3 = 9 - she sells them", "8"),
        ("10 - 7 = **4** apples", "3"),
        ("- 10 - 7 = 4 apples", "3"),
        ("7 \u00d7 8 = 54", "56"),
    ],
)
def test_a_wrong_equation_is_doubted_with_its_right_value(step: str, right: str) -> None:
    found = raised("arithmetic", ["All is well.", step])
    assert [doubt.step for doubt in found] == [1]
    assert found[0].evidence.endswith(f"side is {right}")


@pytest.mark.parametrize(
    "step",
    [
        "48 + 60 = 108",
        "$2.50 * 4 = $10",
        "10 / 3 = 3.33",
        "20 / 3 = 6.66",
        "33.33 * 3 = 100",
        "7 * 8 is about 56",
        "7 * 8 \u2248 60",
        "25% of 48 is 12",
        "20/50 = 40%",
        "100% - 25% = 75%",
        "2 + 3 = 4 + 1 = 5",
        "2 + 3 = 5 + 4 = 9",
        "So 12 apples - 5 apples = 7 apples.",
        "2(3 + 4) = 14",
        "1 1/2 + 2 = 3 1/2",
        "1/2 hour = 30 minutes",
        "60 minutes + 1 hour = 120 minutes",
        "17 / 5 = 3 remainder 2",
        "2 dozen * 2 = 48",
        "50 + 20% = 60",
        "2x + 3 = 7",
        "x + 3 = 7",
        "2s + 30 = 110",
        "7.5 / 1/2 = 15",
        "\u221a16 + 3 = 7",
        "5! = 120",
        "12:30 + 2 = 14:30",
        "5 - 3 is 2 less than 4",
        "1/4 of the votes is equal to 80/4",
        "f(9) = 2 * 2 + 1",
        "5 = 5 and a = b",
        "Anna = 5, 1/0 = 3",
        "The 45-54 year-olds is 145",
    ],
)
def test_an_equation_that_holds_or_cannot_be_judged_is_left_alone(step: str) -> None:
    assert raised("arithmetic", [step]) == []


@given(st.integers(-999, 999), st.sampled_from("+-*"), st.integers(0, 999), st.integers(1, 9))
def test_any_wrong_result_is_found_and_no_right_one(left: int, sign: str, right: int, off: int) -> None:
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    assert raised("arithmetic", [f"{left} {sign} {right} = {result}."]) == []
    assert len(raised("arithmetic", [f"{left} {sign} {right} = {result + off}."])) == 1


# --- answer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "task"),
    [
        ("many", NUMBER),
        (None, NUMBER),
        ("10 - 3", NUMBER),
        ("perhaps", LABEL),
        ("neutral or entailment", LABEL),
        ("E", CHOICE),
    ],
)
def test_an_answer_that_is_not_allowed_is_doubted(answer: str | None, task: TaskConfig) -> None:
    found = raised("answer", ["so"], answer, task=task, item=an_item(choices=["dog", "cat"]))
    assert len(found) == 1
    assert found[0].step is None


@pytest.mark.parametrize(
    ("answer", "task"),
    [("12", NUMBER), ("$1,200.50", NUMBER), ("7/3", NUMBER), ("Neutral.", LABEL), ("(B) cat", CHOICE), ("a", TEXT)],
)
def test_an_allowed_answer_is_left_alone(answer: str, task: TaskConfig) -> None:
    assert raised("answer", ["so"], answer, task=task, item=an_item(choices=["dog", "cat"])) == []


# --- conclusion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "answer", "task"),
    [
        (["3 + 4 = 7", "So there are 7."], "8", NUMBER),
        (["3 + 4 = 7", "7 - 2 = 5 are left."], "7.5", NUMBER),
        (["He counts them."], "8", NUMBER),
        (["The answer is 12."], "21", NUMBER),
        (["3 + 4 = 8", "So that is it."], "9", NUMBER),
        (["So this is a contradiction."], "neutral", LABEL),
        (["It is not neutral but entailment."], "neutral", LABEL),
        (["Therefore it must be the cat."], "(A)", CHOICE),
        (["Somebody walked."], "paris", TEXT),
    ],
)
def test_steps_that_end_elsewhere_are_doubted(steps: list[str], answer: str, task: TaskConfig) -> None:
    found = raised("conclusion", steps, answer, task=task, item=an_item(choices=["the dog", "the cat"]))
    assert [doubt.step for doubt in found] == [len(steps) - 1]


@pytest.mark.parametrize(
    ("steps", "answer", "task"),
    [
        (["3 + 4 = 7"], "7", NUMBER),
        (["So there are seven."], "7", NUMBER),
        (["3 + 4 = 7", "That is all."], "7", NUMBER),
        (["The answer is (76 - 25)."], "51", NUMBER),
        (["17 / 5 = 3.4 boxes"], "3", NUMBER),
        (["She pays $1,200.50."], "1200.5", NUMBER),
        (["A man sleeps, so he does not run."], "contradiction", LABEL),
        (["So it is neutral."], "neutral", LABEL),
        (["The dog barks, not the cat."], "(A)", CHOICE),
        (["It was in Paris."], "the city of Paris", TEXT),
        (["so"], None, NUMBER),
        ([], "7", NUMBER),
    ],
)
def test_steps_that_lead_to_the_answer_are_left_alone(steps: list[str], answer: str | None, task: TaskConfig) -> None:
    assert raised("conclusion", steps, answer, task=task, item=an_item(choices=["the dog", "the cat"])) == []


# --- quantities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "step", "number"),
    [
        (["They had 61 brushes."], 0, "61"),
        (["48 - 9 = 39"], 0, "9"),
        (["48 / 2 = 24", "24 - 5 = 19"], 1, "5"),
        (["Each pays $1999."], 0, "1999"),
        (["48 * 0.71 = 34.08"], 0, "0.71"),
        (["48 - 17 = 31", "31 - 17 = 14"], 0, "17"),
    ],
)
def test_a_number_from_nowhere_is_doubted_once(steps: list[str], step: int, number: str) -> None:
    found = raised("quantities", steps, item=an_item(question=PAINTING))
    assert [(doubt.step, number in doubt.evidence) for doubt in found] == [(step, True)]


@pytest.mark.parametrize(
    "steps",
    [
        ["There are 3 friends and 48 brushes."],
        ["Half is 48 / 2 = 24.", "24 * 0.25 = 6", "24 - 6 = 18"],
        ["They have 24 left, and 18 after that."],
        ["48 * 0.5 = 24 and 24 * 75% = 18"],
        ["$1,200 / 3 = $400 each, so $400.00."],
        ["It is the 1st and the 22nd brush."],
        ["48 * 100 = 4800, and 48 * 1 = 48, and 48 + 0 = 48"],
        ["From 7 to 7:30 there are 30 minutes."],
        ["3 - 48 = -45", "45 brushes are missing."],
    ],
)
def test_a_number_with_a_source_is_left_alone(steps: list[str]) -> None:
    assert raised("quantities", steps, item=an_item(question=PAINTING)) == []


@pytest.mark.parametrize(
    ("question", "step"),
    [
        ("He works 2 hours.", "2 * 60 = 120 minutes"),
        ("A week of work at 8 dollars a day.", "7 * 8 = 56"),
        ("A year of 5 dollars a month.", "12 * 5 = 60"),
        ("She buys a dozen eggs.", "12 eggs"),
        ("He has twice as many as 4.", "2 * 4 = 8"),
        ("Twenty-one of them left.", "21 left"),
        ("Two thirds of 9 are red.", "9 * 2/3 = 6"),
        ("A third of 9 are red.", "9 / 3 = 3"),
        ("On Monday he ate 2/5 of 10.", "10 * 0.4 = 4"),
    ],
)
def test_words_and_units_bring_their_numbers(question: str, step: str) -> None:
    assert raised("quantities", [step], item=an_item(question=question)) == []


def test_quantities_are_no_matter_for_labels() -> None:
    assert raised("quantities", ["There are 17 men."], "neutral", task=LABEL) == []


# --- dissent and agreement ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("greedy", "sampled"),
    [
        ("7", ["7", "7", "7"]),
        ("7", ["7", "7", "8"]),
        ("8", ["7", "7", "7"]),
        (None, ["7", "7", "7"]),
        ("7", ["7", "7", None]),
    ],
)
def test_a_confident_student_dissents(greedy: str | None, sampled: list[str | None]) -> None:
    student = {"answer": canonical(greedy)[0], "sampled_answers": canonical(*sampled)}
    found = raised("dissent", ["so"], "5", student=student)
    assert len(found) == 1
    assert "7" in found[0].evidence


@pytest.mark.parametrize(
    "student",
    [
        None,
        {},
        {"answer": None, "sampled_answers": [None, None]},
        {"answer": canonical("7")[0], "sampled_answers": []},
        {"answer": canonical("5")[0], "sampled_answers": canonical("5", "5", "5")},
        {"answer": canonical("7")[0], "sampled_answers": canonical("7", "5", "5")},
        {"answer": canonical("7")[0], "sampled_answers": canonical("8", "9", "6")},
    ],
)
def test_an_unsure_agreeing_or_absent_student_does_not_dissent(student: dict[str, Any] | None) -> None:
    assert raised("dissent", ["so"], "5", student=student) == []


@pytest.mark.parametrize("siblings", [["6"], ["6", "5"], ["6", "7"], ["6", "6", "5", "5"], ["6", "many"]])
def test_other_samples_that_end_elsewhere_are_a_doubt(siblings: list[str]) -> None:
    found = raised("agreement", ["so"], "5", siblings=siblings)
    assert len(found) == 1
    assert "6" in found[0].evidence


@pytest.mark.parametrize(
    ("answer", "siblings"),
    [("5", []), ("5", ["5"]), ("5", ["5.0", "$5"]), ("5", ["many", "few"]), ("many", ["5", "6"])],
)
def test_other_samples_that_agree_are_none(answer: str, siblings: list[str]) -> None:
    assert raised("agreement", ["so"], answer, siblings=siblings) == []


def test_more_disagreement_weighs_more() -> None:
    weights = [
        raised("agreement", ["so"], "5", siblings=each)[0].weight for each in (["6", "5", "5"], ["6", "5"], ["6", "6"])
    ]
    assert weights == sorted(weights)
    assert weights[0] < weights[-1]


def test_the_spread_of_the_answers_is_told_as_semantic_entropy() -> None:
    (doubt,) = raised("agreement", ["so"], "5", siblings=["6", "6", "5"])
    assert "semantic entropy 0.69" in doubt.evidence


# --- names, contradiction -------------------------------------------------------------------------------------------

TOM = "Tom has 12 apples and is not hungry. Ann is older than Tom. 太郎さんはりんごを5個持っています。How many?"


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("So he gives them to Valarie.", "Valarie"),
        ("Jerry has 12 apples.", "Jerry"),
        ("They live in New York City now.", "New York City"),
        ("花子さんは12個持っています。", "花子"),
    ],
)
def test_a_name_that_the_item_does_not_mention_is_doubted_once(step: str, name: str) -> None:
    found = raised("names", ["Tom has 12 apples.", step, step], item=an_item(question=TOM))
    assert [(doubt.step, f"“{name}”" in doubt.evidence) for doubt in found] == [(1, True)]


@pytest.mark.parametrize(
    "step",
    [
        "Tom's apples are 12, and Ann has none.", "On Monday and in May he eats one.", "Each has 3, so Therefore 4.",
        "He speaks Italian.", "太郎さんは5個です。", "So the Answer is 5, by Step 2.",
    ],
)  # fmt: skip
def test_known_names_and_words_written_like_names_are_left_alone(step: str) -> None:
    assert raised("names", [step], item=an_item(question=TOM)) == []


def test_names_are_no_matter_where_they_may_be_the_answer() -> None:
    assert raised("names", ["It was in Paris, so Paris."], "paris", task=TEXT, item=an_item(question=TOM)) == []


@pytest.mark.parametrize(
    "step",
    [
        "Tom has 15 apples.", "So Tom is hungry today and he eats.", "Tom has 15 apples and sleeps.",
        "First, Ann is younger than Tom.", "Ann is not older than Tom.", "太郎さんはりんごを７個持っています。",
    ],
)  # fmt: skip
def test_a_clause_of_the_item_turned_round_is_doubted_beside_it(step: str) -> None:
    question = TOM.replace("apples and is not hungry", "apples. Tom is not hungry today")
    (doubt,) = raised("contradiction", ["All is well.", step], item=an_item(question=question))
    assert doubt.step == 1
    assert "but the item says" in doubt.evidence


@pytest.mark.parametrize(
    "step",
    [
        "Tom has 12 apples.", "Tom has 12.00 apples.", "Tom has 15 apples after that.", "Ann has 15 apples.",
        "Tom is older than Ann?", "太郎さんはりんごを五個持っています。", "How many?",
    ],
)  # fmt: skip
def test_what_the_item_says_or_leaves_open_is_no_contradiction(step: str) -> None:
    assert raised("contradiction", [step], item=an_item(question=TOM)) == []


def test_a_hypothesis_is_not_what_the_item_holds_for_true() -> None:
    item = an_item(question="Premise: A man walks his dog.\nHypothesis: The man is at home.")
    assert raised("contradiction", ["The man is not at home."], "contradiction", task=LABEL, item=item) == []


# --- support, likeness, likelihood, confidence ----------------------------------------------------------------------


def among_samples(check: str, steps: Sequence[str], others: Sequence[Sequence[str]], **known: Any) -> list[Doubt]:
    item = an_item(question="Tom has 12 apples and eats 5.")
    siblings = [a_rationale(each, "7", NUMBER, item, number) for number, each in enumerate(others, start=1)]
    doubtful = Doubtful(item, a_rationale(steps, "7", NUMBER, item), NUMBER, siblings, **known)
    return doubts(doubtful, ChecksConfig(enabled=(check,)))


SAID = ["Tom has 12 apples and eats 5 of them.", "So 12 - 5 = 7 apples are left.", "He is left with 7 apples."]


def test_the_step_that_no_other_sample_supports_is_named() -> None:
    (doubt,) = among_samples(
        "support", [SAID[0], "His neighbour then steals half the pears.", SAID[1]], [SAID, SAID[:2]]
    )
    assert doubt.step == 1
    assert "neighbour then steals" in doubt.evidence


@pytest.mark.parametrize("others", [[], [SAID], [SAID[:1], SAID[1:]], [[]], [[], SAID]])
def test_steps_that_samples_share_are_supported(others: list[list[str]]) -> None:
    assert among_samples("support", SAID, others) == []


def test_japanese_steps_are_supported_sign_by_sign() -> None:
    said = ["りんごは12個あります。", "5個食べました。"]
    assert among_samples("support", said, [["りんごは１２個あります。", "５個食べました。"]]) == []
    assert among_samples("support", [*said, "隣人が梨を盗みました。"], [said])[0].step == 2


def by_first_letter(texts: Sequence[str]) -> np.ndarray:
    return np.array([[float(text[0] == letter) for letter in "TSHX"] for text in texts], dtype=np.float32)


def test_the_step_least_like_any_other_is_named_by_an_embedder() -> None:
    (doubt,) = among_samples("likeness", [*SAID, "X"], [SAID, SAID[:2]], embed=by_first_letter)
    assert (doubt.step, "mean cosine 0.00" in doubt.evidence) == (3, True)
    assert among_samples("likeness", SAID[:2], [SAID, SAID[:2]], embed=by_first_letter) == []
    assert among_samples("likeness", [*SAID, "X"], [SAID]) == []


def test_a_step_far_less_likely_than_the_others_is_named() -> None:
    (doubt,) = among_samples("likelihood", SAID, [], likelihoods=lambda: [-1.0, -4.0, -1.2])
    assert doubt.step == 1
    assert "probability 2%" in doubt.evidence


@pytest.mark.parametrize("found", [[-1.0, -1.5, -1.2], [], [-1.0, float("nan"), -9.0], [-1.0, float("-inf"), -1.0]])
def test_steps_of_a_kind_or_unreadable_likelihoods_raise_no_doubt(found: list[float]) -> None:
    assert among_samples("likelihood", SAID, [], likelihoods=lambda: found) == []


@pytest.mark.parametrize(
    ("stated", "weight"),
    [(0.0, 0.3), (0.5, 0.15), (0.95, None), (1.0, None), (None, None), (float("nan"), None), (-3.0, 0.3), (7.0, None)],
)
def test_a_teacher_that_says_it_is_unsure_is_doubted(stated: float | None, weight: float | None) -> None:
    item = an_item(question="How many?")
    rationale = a_rationale(["so"], "5", NUMBER, item)
    rationale.confidence = stated
    found = doubts(Doubtful(item, rationale, NUMBER), ChecksConfig(enabled=("confidence",)))
    assert [doubt.weight for doubt in found] == ([] if weight is None else [pytest.approx(weight)])


# --- Japanese -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("１２＋３＝１６", "15"), ("12個＋3個＝16個です。", "15"), ("したがって５×３＝１４です。", "15"),
        ("3万＋5千＝3万6千円", "35000"), ("50の20%は12です", "10"), ("定価1,000円の2割は300円", "200"),
        ("5に3を足すと9です", "8"), ("12を4で割ると4です", "3"),
        ("20個から5個を引くと16個", "15"), ("6に7を掛けると43", "42"), ("5²＝２４", "25"),
    ],
)  # fmt: skip
def test_a_wrong_japanese_equation_is_doubted_with_its_right_value(step: str, right: str) -> None:
    found = raised("arithmetic", ["よし。", step])
    assert [doubt.step for doubt in found] == [1]
    assert found[0].evidence.endswith(f"side is {right}")


@pytest.mark.parametrize(
    "step",
    [
        "１２＋３＝１５", "12個＋3個＝15個です。", "17÷5＝3余り2", "50の20%は10です", "5に3を足すと8です",
        "3万＋5千＝3万5千円",
        "1時間＋30分＝90分", "20÷3＝約6.7", "定価1,000円の2割は200円", "5²=25", "二つと三つで五つ",
    ],
)  # fmt: skip
def test_a_right_japanese_equation_is_left_alone(step: str) -> None:
    assert raised("arithmetic", [step]) == []


def test_japanese_numbers_have_their_sources() -> None:
    item = an_item(question="太郎さんはりんごを十二個持っています。3割を花子さんにあげ、1週間に２個食べます。")
    assert raised("quantities", ["12個のうち3割なので12×0.3＝3.6", "1週間は7日"], item=item) == []
    assert [doubt.step for doubt in raised("quantities", ["12個ある。", "彼は17個持っている。"], item=item)] == [1]


def test_japanese_conclusions_lead_to_their_answers() -> None:
    japanese = TaskConfig(answer=AnswerKind.LABEL, labels={"含意": "", "中立": "", "矛盾": ""})
    assert raised("conclusion", ["したがって矛盾です。"], "矛盾", task=japanese) == []
    assert raised("conclusion", ["中立ではなく、矛盾です。"], "矛盾", task=japanese) == []
    assert len(raised("conclusion", ["したがって矛盾です。"], "中立", task=japanese)) == 1
    assert raised("conclusion", ["答えは１２です。"], "12") == []
    assert len(raised("conclusion", ["答えは１２です。"], "13")) == 1


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [NUMBER, LABEL, CHOICE, TEXT])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_neither_breaks_nor_holds_up_the_checks(text: str, task: TaskConfig) -> None:
    item = an_item(question=text.encode("utf-8", "replace").decode(), choices=[text[:50], "the dog"])
    doubtful = Doubtful(item, a_rationale([text, text], text, task, item), task)
    gc.disable()  # what other tests left behind is not collected on the checks' time
    started = time.thread_time()
    found = doubts(doubtful, ChecksConfig())
    taken = time.thread_time() - started
    gc.enable()
    assert taken < 1
    assert all(doubt.check in CHECKS and 0 < doubt.weight <= 1 for doubt in found)
    assert all(len(doubt.evidence) < 300 for doubt in found)


@given(
    st.lists(st.text(max_size=200) | st.text(alphabet="0123456789.,+-*/=()%$^x of is\n", max_size=200), max_size=4),
    st.text(max_size=50),
    st.text(max_size=100),
    st.sampled_from([NUMBER, LABEL, CHOICE, TEXT]),
)
@settings(max_examples=300, deadline=1000)
def test_no_text_breaks_the_checks(steps: list[str], answer: str, question: str, task: TaskConfig) -> None:
    item = an_item(question=question, choices=["a dog", question])
    doubtful = Doubtful(item, a_rationale(steps, answer, task, item), task, [a_rationale(steps, "5", task, item, 1)])
    found = doubts(doubtful, ChecksConfig())
    assert all(doubt.step is None or 0 <= doubt.step < len(steps) for doubt in found)
    assert 0 <= risk(found) <= 1


def test_only_enabled_checks_are_run_and_named() -> None:
    item = an_item(question="How many?")
    doubtful = Doubtful(item, a_rationale(["1 + 1 = 3"], "9", NUMBER, item), NUMBER)
    everything, one = ChecksConfig(), ChecksConfig(enabled=("arithmetic",))
    assert {doubt.check for doubt in doubts(doubtful, everything)} == {"arithmetic", "conclusion"}
    assert {doubt.check for doubt in doubts(doubtful, one)} == {"arithmetic"}
    assert doubts(doubtful, ChecksConfig(enabled=())) == []
    assert check_set(everything) != check_set(one)
    assert check_set(one) == check_set(ChecksConfig(enabled=("arithmetic",)))


# --- verifier -------------------------------------------------------------------------------------------------------


def read_by_a_student(task: TaskConfig, stated: str, forced: Sequence[Forced]) -> list[Doubt]:
    item = an_item(question="Is it?")
    given = a_rationale(["first", "second", "third"], stated, task, item)
    return doubts(Doubtful(item, given, task, after=lambda: forced), ChecksConfig(enabled=("verifier",)))


def a_label(name: str, *probabilities: float) -> Forced:
    return Forced(Answer(kind=AnswerKind.LABEL, value=name), probabilities)


def test_the_step_behind_which_the_students_belief_falls_is_named() -> None:
    rising = [a_label("neutral", 0.2, 0.5, 0.3), a_label("entailment", 0.8, 0.1, 0.1)]
    falling = [a_label("neutral", 0.3, 0.6, 0.1), a_label("neutral", 0.2, 0.7, 0.1)]
    (doubt,) = read_by_a_student(LABEL, "entailment", [*rising, *falling])
    assert doubt.step == 1
    assert "“neutral”" in doubt.evidence
    assert "from 80% to 30%" in doubt.evidence
    assert doubt.weight == pytest.approx(0.4 * 0.8)


def test_a_convinced_student_raises_no_doubt() -> None:
    assert read_by_a_student(LABEL, "neutral", [a_label("neutral", 0.3, 0.6, 0.1)] * 4) == []


def test_a_student_that_was_never_convinced_names_no_step() -> None:
    never = [Forced(Answer(kind=AnswerKind.NUMBER, value="7"))] * 4
    (doubt,) = read_by_a_student(NUMBER, "5", never)
    assert (doubt.step, doubt.weight) == (None, 0.4)


# --- neighbours, label noise ----------------------------------------------------------------------------------------


def beside_decided(label: str, question: str) -> list[Doubt]:
    items = [an_item(f"d{at}", question=f"where is my card number {at}") for at in range(8)]
    settled = neighbours.decided(items, [Answer(kind=AnswerKind.LABEL, value="neutral")] * 8)
    item = an_item("new", question=question)
    doubtful = Doubtful(item, a_rationale(["so"], label, LABEL, item), LABEL, decided=settled)
    return doubts(doubtful, ChecksConfig(enabled=("neighbours",)))


def test_a_label_that_no_similar_decided_item_has_is_doubted() -> None:
    (doubt,) = beside_decided("entailment", "where is my card")
    assert "5 have “neutral”" in doubt.evidence
    assert "where is my card number" in doubt.evidence


@pytest.mark.parametrize(("label", "question"), [("neutral", "where is my card"), ("entailment", "quite otherwise")])
def test_the_neighbours_label_or_no_neighbours_raise_no_doubt(label: str, question: str) -> None:
    assert beside_decided(label, question) == []


def test_too_few_or_wordless_decided_items_are_no_neighbours() -> None:
    answer = Answer(kind=AnswerKind.LABEL, value="neutral")
    assert neighbours.decided([an_item("a")] * 3, [answer] * 3) is None
    assert neighbours.decided([an_item("a", question="???")] * 30, [answer] * 30) is None


@pytest.mark.parametrize(
    ("shares", "quality"), [((0.1, 0.8, 0.1), 0.15), ((0.5, 0.3, 0.2), 0.6), ((0.4, 0.4, 0.2), 0.5), ((), None)]
)
def test_a_label_is_doubted_the_more_the_likelier_another_one_is(
    shares: tuple[float, ...], quality: float | None
) -> None:
    item = an_item(question="Is it?")
    doubtful = Doubtful(item, a_rationale(["so"], "entailment", LABEL, item), LABEL, probabilities=lambda: shares)
    found = doubts(doubtful, ChecksConfig(enabled=("label_noise",)))
    assert [each.weight for each in found] == ([] if quality is None else [pytest.approx(0.4 * (1 - quality))])
    assert all("“neutral”" in each.evidence for each in found)


def test_checks_without_what_they_need_are_left_out_and_dear_ones_where_the_risk_is_settled() -> None:
    item = an_item(question="How many?")

    def after() -> list[Forced]:
        raise AssertionError("the student was asked")

    doubtful = Doubtful(item, a_rationale(["1 + 1 = 3"], "9", NUMBER, item), NUMBER, after=after)
    doubts(doubtful, ChecksConfig(), settled=bool)
    assert not doubts(Doubtful(item, doubtful.rationale, NUMBER), ChecksConfig(enabled=("verifier", "dissent")))


def test_a_doubt_says_which_words_of_its_step_it_means() -> None:
    steps = ["Tom has 3 apples.", "So 3 + 4 = 8 apples in all."]
    item = an_item()
    case = Doubtful(item, a_rationale(steps, "8", NUMBER, item), NUMBER)
    (doubt,) = CHECKS["arithmetic"].find(case, ChecksConfig())
    start, end = doubt.within(steps) or (0, 0)
    assert steps[1][start:end].startswith("3 + 4 = 8")
    assert Doubt("x", 0, "no passage", 0.5).within(steps) is None
    assert Doubt("x", 0, "“not there”", 0.5).within(steps) is None
    assert Doubt("x", None, "“Tom”", 0.5).within(steps) is None
    assert Doubt("x", 0, "“Tom has…”", 0.5).within(steps) == (0, 7)


@pytest.mark.parametrize(
    ("check", "weight", "shown"),
    [
        ("reader", 0.3, False),
        ("reader", 0.5, True),
        ("first_error", 0.4, False),
        ("names", 0.2, True),
        ("x", 0.05, False),
    ],
)
def test_what_is_learned_is_shown_to_reviewers_only_where_it_is_likely(check: str, weight: float, shown: bool) -> None:
    assert is_shown(Doubt(check, None, "", weight)) is shown
