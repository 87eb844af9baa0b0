"""Divergences of distributions: the reference values, a slow recomputation, and what always holds."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.student.objectives.divergences import (
    FLOOR,
    forward_kl,
    generalised_jsd,
    log_probabilities,
    reverse_kl,
    token_mean,
)

P, Q = (0.7, 0.2, 0.1), (0.1, 0.3, 0.6)
logits = st.lists(st.floats(-12, 12), min_size=5, max_size=5)


def logged(shares: Sequence[float]) -> torch.Tensor:
    return torch.tensor(shares, dtype=torch.float64).log()


def slow_kl(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(one * math.log(one / other) for one, other in zip(p, q, strict=True) if one > 0)


def slow_jsd(p: Sequence[float], q: Sequence[float], beta: float) -> float:
    middle = [beta * one + (1 - beta) * other for one, other in zip(p, q, strict=True)]
    return beta * slow_kl(p, middle) + (1 - beta) * slow_kl(q, middle)


def doubled(some: Sequence[float]) -> torch.Tensor:
    return torch.tensor(some, dtype=torch.float64).log_softmax(dim=-1)


@pytest.mark.parametrize(("beta", "expected"), [(0.1, 0.092674), (0.5, 0.230645), (0.9, 0.086497)])
def test_the_generalised_divergence_has_the_reference_values(beta: float, expected: float) -> None:
    assert generalised_jsd(logged(P), logged(Q), beta).item() == pytest.approx(expected, abs=5e-7)


def test_both_kls_have_the_reference_values_and_stand_at_the_ends() -> None:
    assert forward_kl(logged(P), logged(Q)).item() == pytest.approx(1.101868, abs=5e-7)
    assert reverse_kl(logged(P), logged(Q)).item() == pytest.approx(1.002104, abs=5e-7)
    assert generalised_jsd(logged(P), logged(Q), 0.0) == forward_kl(logged(P), logged(Q))
    assert generalised_jsd(logged(P), logged(Q), 1.0) == reverse_kl(logged(P), logged(Q))


@given(logits, logits, st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_they_are_what_loops_over_the_classes_give(one: list[float], other: list[float], beta: float) -> None:
    p, q = doubled(one), doubled(other)
    shares = p.exp().tolist(), q.exp().tolist()
    assert forward_kl(p, q).item() == pytest.approx(slow_kl(*shares), rel=1e-6, abs=1e-9)
    assert reverse_kl(p, q).item() == pytest.approx(slow_kl(*shares[::-1]), rel=1e-6, abs=1e-9)
    assert generalised_jsd(p, q, beta).item() == pytest.approx(slow_jsd(*shares, beta), rel=1e-6, abs=1e-9)


@given(logits, logits, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_they_are_never_negative_and_nothing_is_apart_from_itself(
    one: list[float], other: list[float], beta: float
) -> None:
    p, q = doubled(one), doubled(other)
    for found in (forward_kl(p, q), reverse_kl(p, q), generalised_jsd(p, q, beta)):
        assert found.item() >= -1e-12
    assert generalised_jsd(p, p, beta).item() == pytest.approx(0, abs=1e-12)
    assert generalised_jsd(p, q, 0.5).item() <= math.log(2) + 1e-12
    assert generalised_jsd(p, q, 0.5).item() == pytest.approx(generalised_jsd(q, p, 0.5).item(), abs=1e-12)


@given(logits, logits)
@settings(max_examples=40, deadline=None)
def test_towards_its_ends_it_behaves_like_the_kls(one: list[float], other: list[float]) -> None:
    p, q, near = doubled([each / 6 for each in one]), doubled([each / 6 for each in other]), 1e-7
    assert (generalised_jsd(p, q, near) / near).item() == pytest.approx(forward_kl(p, q).item(), rel=1e-4, abs=1e-6)
    assert (generalised_jsd(p, q, 1 - near) / near).item() == pytest.approx(reverse_kl(p, q).item(), rel=1e-4, abs=1e-6)


def test_a_token_that_a_model_masks_leaves_all_finite() -> None:
    teacher = log_probabilities(torch.tensor([[1.0, -torch.inf, 0.0]]))
    own = torch.tensor([[0.0, 2.0, -torch.inf]], requires_grad=True)
    student = log_probabilities(own)
    assert teacher[0, 1] == FLOOR
    for found in (
        forward_kl(teacher, student),
        reverse_kl(teacher, student),
        generalised_jsd(teacher, student, 0.5),
    ):
        assert found.isfinite().all()
        [gradient] = torch.autograd.grad(found.sum(), own, retain_graph=True)
        assert gradient.isfinite().all()


def test_a_temperature_flattens_before_it_compares() -> None:
    some = torch.tensor([3.0, 1.0, -2.0])
    assert torch.allclose(log_probabilities(some, 2.0).exp(), (some / 2).softmax(dim=-1))


def test_the_mean_of_weighed_tokens_is_over_how_many_there_are() -> None:
    each, weight = torch.tensor([[5.0, 1.0, 3.0], [9.0, 9.0, 2.0]]), torch.tensor([[0.0, 1, 1], [0, 0, 0.5]])
    assert token_mean(each, weight).item() == pytest.approx((1 + 3 + 0.5 * 2) / 3)
    assert token_mean(each, 3 * weight).item() == pytest.approx(3 * token_mean(each, weight).item())
    assert token_mean(each, torch.zeros(2, 3)).item() == 0
