"""Acquisition functions: values worked out by hand, agreement with slow definitions, and bad input."""

import numpy as np
import pytest

from loop.query.acquisition import (
    ACQUISITIONS,
    Candidates,
    Floats,
    badge,
    coreset,
    entropy,
    explanation_divergence,
    filled,
    largest,
    least_confidence,
    margin,
    margins,
    teacher_student_gap,
    typiclust,
)


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def candidates(
    size: int = 0,
    *,
    divergence: Floats | None = None,
    mean_divergence: Floats | None = None,
    probabilities: Floats | None = None,
    embeddings: Floats | None = None,
    asked: Floats | None = None,
    trusted: Floats | None = None,
    cost: Floats | None = None,
) -> Candidates:
    size = max(size, len(probabilities if probabilities is not None else ()))
    return Candidates(
        divergence=np.zeros(size) if divergence is None else divergence,
        mean_divergence=np.zeros(size) if mean_divergence is None else mean_divergence,
        probabilities=np.ones((size, 1)) if probabilities is None else probabilities,
        embeddings=np.zeros((0, 2)) if embeddings is None else embeddings,
        asked=np.zeros((0, 2)) if asked is None else asked,
        trusted=np.zeros(0) if trusted is None else trusted,
        cost=np.ones(size) if cost is None else cost,
    )


UNSURE = np.array([[0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05], [0.55, 0.45, 0.0]])


def test_each_measure_of_doubt_has_its_own_order() -> None:
    known = candidates(probabilities=UNSURE)
    assert entropy(known, 4, chance()).tolist() == [1, 0, 3, 2]  # 1.089, 0.693, 0.688, 0.394 nats
    assert least_confidence(known, 4, chance()).tolist() == [1, 0, 3, 2]  # 0.6, 0.5, 0.45, 0.1
    assert margin(known, 4, chance()).tolist() == [0, 1, 3, 2] or margin(known, 4, chance()).tolist() == [0, 3, 1, 2]
    assert margins(UNSURE) == pytest.approx([0, 0.1, 0.85, 0.1])


def test_doubts_are_ordered_without_embeddings_and_covered_with_them() -> None:
    points = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    ranks, means = np.array([1.0, 0.7, 0.3, 0.0]), np.array([0.5, 0.5, 0.4, 0.4])
    bare, embedded = (
        candidates(divergence=ranks, mean_divergence=means, probabilities=UNSURE, embeddings=each)
        for each in (None, points)
    )
    assert explanation_divergence(bare, 2, chance()).tolist() == [0, 1]
    assert {place // 2 for place in explanation_divergence(embedded, 2, chance()).tolist()} == {0, 1}
    assert explanation_divergence(embedded, 1, chance())[0] in (0, 1)
    assert entropy(bare, 2, chance()).tolist() == [1, 0]
    for doubt in (entropy, least_confidence, margin):
        assert {place // 2 for place in doubt(embedded, 2, chance()).tolist()} == {0, 1}


def test_coreset_is_greedy_k_center() -> None:
    points = chance(1).normal(size=(60, 5))
    asked = chance(2).normal(size=(7, 5))
    ours = coreset(candidates(embeddings=points, asked=asked), 10, chance())
    centers, slow = list(asked), []
    for _ in range(10):
        distances = [min(np.linalg.norm(point - center) for center in centers) for point in points]
        slow.append(int(np.argmax(distances)))
        centers.append(points[slow[-1]])
    assert ours.tolist() == slow


def test_coreset_starts_anywhere_where_nothing_was_asked() -> None:
    points = chance(1).normal(size=(30, 3))
    first = {coreset(candidates(embeddings=points), 1, chance(seed))[0] for seed in range(50)}
    assert len(first) > 10


def test_badge_draws_by_the_distance_of_the_gradients() -> None:
    probabilities = chance(3).dirichlet([1, 1, 1], size=8)
    points = chance(4).normal(size=(8, 2))
    errors = probabilities.copy()
    errors[np.arange(8), errors.argmax(axis=1)] -= 1
    gradients = np.einsum("ij,ik->ijk", errors, points).reshape(8, -1)
    start = int(np.linalg.norm(gradients, axis=1).argmax())
    expected = ((gradients - gradients[start]) ** 2).sum(axis=1)
    picks = np.array(
        [badge(candidates(probabilities=probabilities, embeddings=points), 2, chance(seed)) for seed in range(2_000)]
    )
    assert set(picks[:, 0]) == {start}
    shares = np.bincount(picks[:, 1], minlength=8) / 2_000
    assert shares == pytest.approx(expected / expected.sum(), abs=0.04)


def test_badge_goes_on_where_all_gradients_are_alike() -> None:
    known = candidates(probabilities=np.full((6, 2), 0.5), embeddings=np.ones((6, 2)))
    assert sorted(badge(known, 6, chance()).tolist()) == list(range(6))


def test_typiclust_takes_the_middle_of_each_dense_place() -> None:
    places = np.array([[0, 0], [10, 0], [0, 10]])
    cross = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [0.9, 0.9]])
    points = np.concatenate([place + cross for place in places]) + 0.0
    chosen = typiclust(candidates(embeddings=points), 3, chance())
    assert sorted(chosen.tolist()) == [0, 6, 12]


def test_typiclust_leaves_places_that_were_asked_of() -> None:
    places = np.array([[0, 0], [10, 0], [0, 10]])
    points = np.concatenate([place + chance(5).normal(scale=0.1, size=(8, 2)) for place in places])
    chosen = typiclust(candidates(embeddings=points, asked=np.array([[10.0, 0.0]])), 2, chance())
    assert sorted(chosen // 8) == [0, 2]


def test_gap_wants_a_trusted_teacher_and_an_unsure_student() -> None:
    known = candidates(
        probabilities=np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]),
        embeddings=np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 0.1]]),
        asked=np.concatenate([np.zeros((20, 2)), np.full((20, 2), [5.0, 0.0])]),
        trusted=np.array([1.0] * 20 + [0.0] * 20),
    )
    assert teacher_student_gap(known, 3, chance()).tolist() == [0, 1, 2]
    nothing_asked = candidates(probabilities=UNSURE, embeddings=np.zeros((4, 2)))
    assert teacher_student_gap(nothing_asked, 2, chance()).tolist() == [1, 0]


def test_scores_that_are_no_numbers_come_last() -> None:
    scores = np.array([0.1, np.nan, 0.3, -np.inf, np.nan, 0.2])
    assert largest(scores, 3, chance()).tolist() == [2, 5, 0]
    assert len(largest(scores, 9, chance())) == 6


def test_rows_of_different_lengths_are_filled_up() -> None:
    assert filled([(0.5, 0.5), (1.0,)]).tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert filled([]).shape == (0, 0)


@pytest.mark.parametrize("name", ACQUISITIONS)
@pytest.mark.parametrize("count", [0, 1, 2, 40])
@pytest.mark.parametrize("alike", [True, False])
def test_every_function_names_each_candidate_once_whatever_comes(name: str, count: int, alike: bool) -> None:
    random = chance(count)
    known = Candidates(
        divergence=np.full(count, 0.3) if alike else random.random(count),
        mean_divergence=np.full(count, 0.3) if alike else random.random(count),
        probabilities=np.full((count, 1), 1.0) if alike else random.dirichlet([1, 1, 1], size=count),
        embeddings=np.ones((count, 4)) if alike else random.normal(size=(count, 4)),
        asked=np.ones((3, 4)),
        trusted=np.ones(3),
        cost=np.ones(count),
    )
    acquire, _ = ACQUISITIONS[name]
    for size in (0, 1, count, count + 5):
        chosen = acquire(known, size, chance())
        assert len(set(chosen.tolist())) == len(chosen) == min(size, count)
        assert set(chosen.tolist()) <= set(range(count))
    assert acquire(known, count, chance(9)).tolist() == acquire(known, count, chance(9)).tolist()
