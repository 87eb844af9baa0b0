"""What an item is expected to cost, in shares of both budgets."""

import numpy as np
import pytest

from loop.config import BudgetConfig
from loop.query.acquisition import ACQUISITIONS
from loop.query.cost import relative_costs, review_chances
from tests.builders import an_item
from tests.test_acquisition import candidates as known_of


def test_costs_are_shares_of_both_budgets_over_their_mean() -> None:
    found = relative_costs([0.01, 0.03], [2.0, 2.0], BudgetConfig(usd=1.0, minutes=100.0))
    assert found == pytest.approx(np.array([0.03, 0.05]) / 0.04)


def test_a_budget_of_nothing_is_left_out() -> None:
    assert relative_costs([1.0, 3.0], [5.0, 1.0], BudgetConfig(usd=0.0, minutes=10.0)) == pytest.approx([5 / 3, 1 / 3])
    assert relative_costs([1.0, 3.0], [5.0, 1.0], BudgetConfig(usd=0.0, minutes=0.0)).tolist() == [1.0, 1.0]


def test_without_items_there_is_no_cost() -> None:
    assert relative_costs([], [], BudgetConfig()).shape == (0,)


def test_reviews_are_expected_where_they_were_needed() -> None:
    items = [an_item("a", domain="hard"), an_item("b", domain="easy"), an_item("c", domain="new")]
    past = [("hard", True)] * 8 + [("easy", False)] * 8
    assert review_chances(items, past, 0.0) == pytest.approx([0.9, 0.1, 0.5])
    assert review_chances(items, past, 0.2) == pytest.approx([0.92, 0.28, 0.6])


@pytest.mark.parametrize("name", ["explanation_divergence", "entropy", "least_confidence", "margin"])
def test_of_two_items_alike_the_cheaper_comes_first(name: str) -> None:
    found = known_of(
        2, divergence=np.array([0.5, 0.5]), probabilities=np.array([[0.6, 0.4]] * 2), cost=np.array([2.0, 1.0])
    )
    assert ACQUISITIONS[name][0](found, 2, np.random.default_rng(0)).tolist() == [1, 0]


def test_where_an_hour_of_review_has_a_price_the_budgets_do_not_weigh() -> None:
    budget = BudgetConfig(usd=1.0, minutes=1000.0, usd_per_review_hour=60.0)
    assert relative_costs([1.0, 0.0], [0.0, 3.0], budget).tolist() == [0.5, 1.5]
