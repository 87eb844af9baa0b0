"""A planted error changes one step, says what it changed, and is one that the checks can look for."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.checks.planted import ErrorKind, Good, choose, plant
from loop.records import Author, Rationale

STEPS = ("Tom has 12 apples and is not hungry.", "He buys 5 more: 12 + 5 = 17 apples.", "That takes 3 hours.")


def test_one_step_is_changed_as_it_is_said() -> None:
    for seed in range(50):
        found = plant(STEPS, seed=seed)
        assert found is not None
        assert [place for place, (old, new) in enumerate(zip(STEPS, found.steps, strict=True)) if old != new] == [
            found.step
        ]
        assert found.before in STEPS[found.step]
        assert found.after in found.steps[found.step]
        assert found.before != found.after


def test_every_kind_comes_up_and_the_same_seed_plants_the_same() -> None:
    kinds = Counter(found.kind for seed in range(200) if (found := plant(STEPS, seed=seed)))
    assert set(kinds) == set(ErrorKind)
    assert min(kinds.values()) > 20
    assert plant(STEPS, seed=3) == plant(STEPS, seed=3)


@pytest.mark.parametrize(
    ("step", "kind", "bad"),
    [
        ("The trip took 3 hours.", ErrorKind.UNIT, "The trip took 3 minutes."),
        ("A dog is an animal.", ErrorKind.PREMISE, "A dog is not an animal."),
        ("Playing is not sleeping.", ErrorKind.PREMISE, "Playing is sleeping."),
    ],
)
def test_units_and_premises_are_turned_round(step: str, kind: ErrorKind, bad: str) -> None:
    found = {each.steps[0] for seed in range(40) if (each := plant([step], seed=seed)) and each.kind is kind}
    assert found == {bad}


@pytest.mark.parametrize("steps", [[], ["Hm."], ["", "   "], ["x1 2x 3/4"]])
def test_where_nothing_can_be_planted_nothing_is(steps: list[str]) -> None:
    assert plant(steps, seed=0) is None


@given(st.lists(st.text(max_size=300), max_size=5), st.integers(0, 5))
def test_no_text_breaks_it(steps: list[str], seed: int) -> None:
    found = plant(steps, seed=seed)
    assert found is None or found.steps != tuple(steps)


def a_good(key: str, *, audited: bool = True, used: int = 0, steps: tuple[str, ...] = STEPS) -> Good:
    return Good(Rationale(item_key=key, round_id=1, author=Author.TEACHER, steps=list(steps)), audited, used)


def test_one_is_shown_untouched_for_each_error_over_the_rounds() -> None:
    good = [a_good(f"q{number}") for number in range(9)]
    first = [bad is None for _, bad in choose(good, 3, ahead=0, seed=1)]
    assert first == [False, True, False]
    assert [bad is None for _, bad in choose(good, 3, ahead=1, seed=2)] == [True, False, True]
    assert len({each.rationale.item_key for each, _ in choose(good, 9, ahead=0, seed=1)}) == 9
    assert len(choose(good, 99, ahead=0, seed=1)) == 9


def test_what_was_used_least_comes_first_then_what_people_saw_by_chance() -> None:
    good = [a_good("doubted", audited=False), a_good("chance"), a_good("used", used=1)]
    for seed in range(10):
        assert [each.rationale.item_key for each, _ in choose(good, 3, ahead=0, seed=seed)] == [
            "chance",
            "doubted",
            "used",
        ]


def test_what_no_error_can_be_planted_in_is_not_used_untouched_either() -> None:
    assert choose([a_good("hm", steps=("Hm.",))], 2, ahead=1, seed=0) == []


def test_the_same_seed_chooses_the_same_whatever_the_order() -> None:
    good = [a_good(f"q{number}") for number in range(9)]
    chosen = choose(good, 4, ahead=0, seed=5)
    assert chosen == choose(good[::-1], 4, ahead=0, seed=5)
    assert chosen != choose(good, 4, ahead=0, seed=6)
