"""A rationale is spoiled in one place at a time, and another one takes its place."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.checks.corruption import corrupted
from loop.records import Harm

STEPS = ("Ann has 3 apples.", "3 + 4 = 7", "So she has 7 apples.")
OTHERS = [["The train leaves at 9.", "9 + 2 = 11"]]
SENTENCES = st.lists(st.text("ab 12.=", min_size=1, max_size=12), min_size=1, max_size=4)


def spoiled(seed: int = 0) -> dict[Harm, tuple[str, ...]]:
    return corrupted(STEPS, OTHERS, chance=random.Random(seed))


@pytest.mark.parametrize("seed", range(5))
def test_one_number_or_one_word_gives_way_to_another(seed: int) -> None:
    found = spoiled(seed)
    for harm in (Harm.NUMBER, Harm.WORD):
        words = [word for step in STEPS for word in step.split()]
        changed = [word for step in found[harm] for word in step.split()]
        assert sum(one != other for one, other in zip(words, changed, strict=True)) == 1
    [word] = {word.strip(".") for step in found[Harm.WORD] for word in step.split()} - {
        word.strip(".") for step in STEPS for word in step.split()
    }
    assert word in ("The", "train", "leaves")


def test_steps_change_their_order_and_nothing_else() -> None:
    shuffled = spoiled()[Harm.SHUFFLED]
    assert shuffled != STEPS
    assert sorted(shuffled) == sorted(STEPS)


def test_another_rationale_is_taken_whole() -> None:
    assert spoiled()[Harm.OTHER] == tuple(OTHERS[0])


def test_what_cannot_be_done_is_left_out() -> None:
    assert corrupted(["so it is"], [], chance=random.Random(0)) == {}
    assert set(corrupted(["2 + 2 = 4"], [], chance=random.Random(0))) == {Harm.NUMBER}


@given(SENTENCES, st.lists(SENTENCES, max_size=2), st.integers(0, 99))
def test_nothing_is_called_spoiled_that_is_not(steps: list[str], others: list[list[str]], seed: int) -> None:
    found = corrupted(steps, others, chance=random.Random(seed))
    assert all(each != tuple(steps) for each in found.values())
    assert found == corrupted(steps, others, chance=random.Random(seed))
