"""The simulated seconds of continuing and of rewriting are those that can be added up by hand."""

import pytest

from benchmarks.continuing import (
    CONFIRM,
    Model,
    Solution,
    continue_keys,
    continuing,
    edit_keys,
    paired_ratio,
    recorded_errors,
    whole_text,
)

SOLUTION = Solution("set", "one two three", ("a b", "c d", "e f"), error=1)
MODEL = Model(key=1.0, decide=10.0, words_per_minute=60.0)


def test_rewriting_reads_all_decides_on_each_step_and_types_the_rest() -> None:
    keys = MODEL.press(edit_keys(SOLUTION.steps, 1, MODEL.answer))
    assert whole_text(SOLUTION, MODEL) == 9 + 3 * 10 + keys
    assert MODEL.press(["e", "Tab", "Ctrl+a", "1"]) == 5


def test_continuing_reads_to_the_error_types_one_step_and_reads_what_follows() -> None:
    keys = MODEL.press(continue_keys(1, "c d")) + MODEL.press(CONFIRM)
    assert continuing(SOLUTION, MODEL, lambda *_: 0.0) == 7 + 2 * 10 + 5 + 2 + 10 + keys


def test_a_continuation_that_errs_again_costs_more() -> None:
    never, half, always = (continuing(SOLUTION, MODEL, lambda *_, share=share: share) for share in (0.0, 0.5, 1.0))
    assert never < half < always
    assert half == pytest.approx((never + always) / 2)


def test_how_often_it_errs_again_is_counted_over_solutions_that_were_right_so_far() -> None:
    every = [SOLUTION, Solution("set", "", ("a", "b", "c"), None), Solution("set", "", ("a", "b"), 0)]
    errs = recorded_errors(every)
    assert errs(SOLUTION, 0) == 0.5
    assert errs(SOLUTION, 1) == 0.0


def test_the_ratio_is_of_the_same_items() -> None:
    assert paired_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) | {"unit": ""} == {
        "value": 0.5, "low": 0.5, "high": 0.5, "unit": ""
    }  # fmt: skip
