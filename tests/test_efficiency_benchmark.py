"""What the benchmark of spending says of known curves."""

from typing import Any

import pytest

from benchmarks.efficiency import FULL, OURS, RANDOM, _areas, figures_of


def cell(method: str, seed: int, usd: list[float], accuracy: list[float]) -> dict[str, Any]:
    return {"set": "s", "method": method, "seed": seed, "usd": usd, "accuracy": accuracy}


def test_the_same_accuracies_at_half_the_dollars_are_a_gain() -> None:
    cells = [cell(FULL, seed, [8.0], [0.9]) for seed in range(3)]
    cells += [cell(RANDOM, seed, [1.0, 2.0, 3.0, 4.0], [0.2, 0.4, 0.6, 0.8]) for seed in range(3)]
    cells += [cell(OURS, seed, [0.5, 1.0, 1.5, 2.0], [0.2, 0.4, 0.6, 0.8]) for seed in range(3)]
    figures, _ = figures_of(cells)
    gain = figures["auc_gain_random.s"]  # from 1 to 2 dollars: 0.6 on average against 0.3
    assert (gain["value"], gain["low"], gain["high"]) == pytest.approx((0.3, 0.3, 0.3))
    assert _areas(cells) == pytest.approx({RANDOM: 0.3, OURS: 0.6})


def test_another_price_of_the_same_line_is_no_gain() -> None:
    line = [0.1, 0.2, 0.3, 0.4]
    cells = [cell(FULL, seed, [8.0], [0.9]) for seed in range(3)]
    cells += [cell(RANDOM, seed, [1.0, 2.0, 3.0, 4.0], line) for seed in range(3)]
    cells += [cell(OURS, seed, [1.0, 2.5], [0.1, 0.25]) for seed in range(3)]
    assert figures_of(cells)[0]["auc_gain_random.s"]["value"] == pytest.approx(0.0)
