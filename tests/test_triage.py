"""What a minute of review is worth, and the order that follows from it."""

import random

import pytest

from review.triage import Need, pace, places, worth


def a_need(**fields: float) -> Need:
    return Need(**({"risk": 0.5, "doubt": 0.5, "correctable": 0.5, "length": 100} | fields))


@pytest.mark.parametrize("field", ["risk", "doubt", "correctable"])
def test_a_minute_is_worth_more_with_every_part_of_the_need(field: str) -> None:
    assert worth(a_need(**{field: 0.9}), 1.0) > worth(a_need(**{field: 0.1}), 1.0)


def test_a_minute_is_worth_less_the_longer_the_review_takes() -> None:
    assert worth(a_need(), 2.0) == pytest.approx(worth(a_need(), 1.0) / 2)


def test_an_item_of_which_the_student_is_sure_still_teaches_half() -> None:
    assert worth(a_need(doubt=0.0), 1.0) == pytest.approx(worth(a_need(doubt=1.0), 1.0) / 2)


def test_before_any_verdict_every_review_takes_what_the_config_says() -> None:
    minutes = pace([], 1.5)
    assert minutes(10) == minutes(10_000) == 1.5


def test_minutes_by_length_are_learned_from_past_reviews() -> None:
    minutes = pace([(length, 0.5 + length / 500) for length in range(100, 1100, 10)], 1.5)
    assert minutes(200) == pytest.approx(0.9, abs=0.15)
    assert minutes(1000) == pytest.approx(2.5, abs=0.15)


def test_a_few_reviews_move_the_expectation_a_little() -> None:
    assert 1.5 < pace([(100, 3.0)] * 2, 1.5)(100) < 2.0


def test_a_page_left_open_is_not_believed() -> None:
    past = [(100, 1.0)] * 50
    assert pace([*past, (100, 60.0)], 1.0)(100) < 1.25


def test_no_length_is_expected_to_take_no_time() -> None:
    assert pace([(100, 0.1), (1000, 5.0)] * 50, 1.0)(1) > 0


def test_what_is_worth_most_comes_first_and_what_is_nearly_alike_shares_a_place() -> None:
    found = places({"low": 0.1, "high": 0.8, "alike": 0.81}, {})
    assert found["high"] == found["alike"] < found["low"]
    assert all(0 <= place <= 1 for place in found.values())


def test_places_rest_while_the_worth_hardly_moves() -> None:
    before = places({"a": 0.50, "b": 0.10}, {})
    assert places({"a": 0.51, "b": 0.101}, {}) == before
    assert places({"a": 0.25, "b": 0.05}, {}) == before


def test_the_place_of_an_audit_tells_nothing_of_it() -> None:
    """Among many, audits and planted ones stand at the places of others, early and late alike, whatever their worth."""
    chance = random.Random(0)
    worths = {f"r{n}": chance.random() for n in range(400)} | {f"a{n}": 0.001 for n in range(400)}
    found = places(worths, {f"a{n}": f"a{n}" for n in range(400)})
    others = {found[f"r{n}"] for n in range(400)}
    audits = [found[f"a{n}"] for n in range(400)]
    assert set(audits) <= others
    median = sorted(found[f"r{n}"] for n in range(400))[200]
    assert 160 <= sum(place < median for place in audits) <= 240


def test_audits_alone_stand_in_an_order_by_chance_that_stays() -> None:
    worths, drawn = {f"a{n}": n / 10 for n in range(10)}, {f"a{n}": f"a{n}" for n in range(10)}
    found = places(worths, drawn)
    assert len(set(found.values())) == 10
    assert found == places(dict(reversed(worths.items())), drawn)


def test_what_a_correction_saves_counts_for_the_rationales_that_are_likely_corrected() -> None:
    assert worth(a_need(), 1.0, saved=1.0) == pytest.approx(worth(a_need(), 1.0) / 0.75)
    assert worth(a_need(risk=0.0), 1.0, saved=100.0) == 0
    assert worth(a_need(), 1.0, saved=1e9) == pytest.approx(5 * worth(a_need(), 1.0))
