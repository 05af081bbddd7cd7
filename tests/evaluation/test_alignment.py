import numpy as np
import pytest

from pacx.evaluation.alignment import mcnemar, permutation_test, ridge_alignment


def _pairs(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    return x, x @ np.random.default_rng(1).normal(size=(8, 6)) + noise * rng.normal(size=(n, 6)) + 5


def test_permutation_test_is_the_limit_of_many_shuffles():
    rng = np.random.default_rng(3)
    similarity = rng.normal(size=(60, 60)) + 0.1 * np.eye(60)
    rows = np.arange(60)
    shuffled = [similarity[rows, rng.permutation(rows)].mean() for _ in range(20_000)]
    chance, p = permutation_test(similarity)
    own = np.trace(similarity) / 60
    # Standard errors of the share and of the mean of so many shuffles; three of them.
    share = np.mean(np.array(shuffled) >= own)
    assert 0.001 < share < 0.2
    assert p == pytest.approx(share, abs=3 * np.sqrt(share / 20_000) + 0.002)
    assert chance == pytest.approx(np.mean(shuffled), abs=3 * np.std(shuffled) / np.sqrt(20_000))


def test_permutation_test_has_no_floor_and_finds_nothing_in_noise():
    rng = np.random.default_rng(4)
    assert permutation_test(rng.normal(size=(60, 60)) + 5 * np.eye(60))[1] < 1e-6
    ps = [permutation_test(rng.normal(size=(60, 60)))[1] for _ in range(200)]
    assert np.mean(np.array(ps) <= 0.05) < 0.11  # 0.05 and four standard errors


def test_mcnemar_counts_only_whom_one_of_both_finds():
    ours, theirs = np.array([True] * 10), np.array([True] * 2 + [False] * 8)
    assert mcnemar(ours, theirs) == pytest.approx(2 / 2**8)
    assert mcnemar(ours, ours) == 1


def test_ties_count_against_us():
    (train_x, train_t), (test_x, test_t) = _pairs(300, 0.1), _pairs(40, 0.1, seed=2)
    assert (
        ridge_alignment(train_x, train_t, test_x, np.tile(test_t[:1], (40, 1))).ranks == 40
    ).all()
    twins = ridge_alignment(train_x, train_t, test_x, np.repeat(test_t[::2], 2, axis=0))
    assert (twins.ranks >= 2).all()


def test_similarity_is_centred_on_the_training_mean():
    (train_x, train_t), (test_x, test_t) = _pairs(300, 0.5), _pairs(50, 0.5, seed=2)
    aligned = ridge_alignment(train_x, train_t, test_x, test_t)
    few = ridge_alignment(train_x, train_t, test_x[:2], test_t[:2])
    assert few.similarity == pytest.approx(aligned.similarity[:2, :2])  # of no other patient
    assert np.trace(aligned.similarity) / 50 == pytest.approx(aligned.cosine_centred, abs=0.02)
    assert aligned.cosine_raw > aligned.cosine_centred  # the common part flatters
