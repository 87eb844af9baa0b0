"""The risk starts from measured weights, learns from verdicts, and never falls because of a doubt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.checks.doubt import Doubt
from loop.checks.risk import BASE, PRIOR, Reviewed, cross_fitted, evidence, fit, risk

LIGHT, HEAVY = Doubt("quantities", 0, "", 0.4), Doubt("arithmetic", 0, "", 0.85)


def test_before_any_verdict_one_doubt_gives_the_share_that_was_measured_for_it() -> None:
    assert risk([]) == pytest.approx(BASE)
    assert risk([LIGHT]) == pytest.approx(1 - 0.9 * 0.6)
    assert risk([LIGHT, LIGHT]) == risk([LIGHT])
    assert risk([Doubt("answer", None, "", 1.0)]) > 0.999


def test_two_checks_add_their_log_odds() -> None:
    def odds(share: float) -> float:
        return share / (1 - share)

    both = odds(risk([LIGHT])) * odds(risk([HEAVY])) / odds(BASE)
    assert odds(risk([LIGHT, HEAVY])) == pytest.approx(both)


def test_no_verdicts_leave_the_prior() -> None:
    assert fit([]) is PRIOR


def a_world(n: int, seed: int) -> list[Reviewed]:
    """Verdicts where a third is wrong, `arithmetic` says it well and `quantities` says nothing."""
    chance = np.random.default_rng(seed)
    wrong = chance.random(n) < 0.3
    seen = [
        [
            *([HEAVY] if chance.random() < (0.6 if bad else 0.02) else []),
            *([LIGHT] if chance.random() < 0.5 else []),
        ]
        for bad in wrong
    ]
    return [Reviewed(evidence(doubts), bool(bad)) for doubts, bad in zip(seen, wrong, strict=True)]


def test_verdicts_teach_which_checks_to_believe() -> None:
    cases = a_world(1000, seed=0)
    model = fit(cases)
    assert model.reviewed == 1000
    assert model.weights["quantities"] < 0.15 < model.weights["arithmetic"]
    share = np.mean([case.wrong for case in cases if not case.evidence])
    assert model({}) == pytest.approx(share, abs=0.04)


def test_a_cross_fitted_risk_is_calibrated() -> None:
    cases = a_world(2000, seed=1)
    risks = np.array(cross_fitted(cases, seed=0))
    wrong = np.array([case.wrong for case in cases])
    assert risks.mean() == pytest.approx(wrong.mean(), abs=0.01)
    for high in (True, False):
        these = (risks > 0.5) == high
        assert risks[these].mean() == pytest.approx(wrong[these].mean(), abs=0.04)


def test_weights_undo_an_unequal_chance_of_review() -> None:
    cases = a_world(4000, seed=2)
    chance = np.random.default_rng(3)
    seen = [case for case in cases if case.wrong or chance.random() < 0.2]
    weighted = [Reviewed(case.evidence, case.wrong, 1.0 if case.wrong else 5.0) for case in seen]
    assert fit(weighted)({}) == pytest.approx(fit(cases)({}), abs=0.03)
    assert fit(seen)({}) > fit(cases)({}) + 0.1


@given(st.lists(st.tuples(st.floats(0, 6), st.floats(0, 6), st.booleans()), max_size=12))
def test_no_verdicts_make_a_doubt_lower_the_risk(rows: list[tuple[float, float, bool]]) -> None:
    model = fit([Reviewed({"a": one, "b": two}, wrong) for one, two, wrong in rows])
    assert model({}) <= model({"a": 1.0}) <= model({"a": 1.0, "b": 0.5})
    assert model({"new": 1.0}) > model({})
