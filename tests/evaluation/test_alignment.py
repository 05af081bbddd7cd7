import numpy as np
import pytest

from pacx.evaluation.alignment import permutation_test, ridge_alignment


def _pairs(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    return x, x @ np.random.default_rng(1).normal(size=(8, 6)) + noise * rng.normal(size=(n, 6)) + 5


def test_permutation_test_finds_true_pairs_and_only_those():
    _, targets = _pairs(60, 0.1)
    floor, p = permutation_test(targets + 0.1, targets)
    assert abs(floor) < 0.1
    assert p == pytest.approx(1 / 1000)
    rng = np.random.default_rng(3)
    ps = [permutation_test(rng.normal(size=targets.shape), targets)[1] for _ in range(60)]
    assert np.mean(np.array(ps) <= 0.05) < 0.2  # about one in twenty by chance


def test_ties_count_against_us():
    (train_x, train_t), (test_x, test_t) = _pairs(300, 0.1), _pairs(40, 0.1, seed=2)
    assert (
        ridge_alignment(train_x, train_t, test_x, np.tile(test_t[:1], (40, 1))).ranks == 40
    ).all()
    twins = ridge_alignment(train_x, train_t, test_x, np.repeat(test_t[::2], 2, axis=0))
    assert (twins.ranks >= 2).all()


def test_cosines_are_those_of_the_pairs():
    (train_x, train_t), (test_x, test_t) = _pairs(300, 0.5), _pairs(50, 0.5, seed=2)
    aligned = ridge_alignment(train_x, train_t, test_x, test_t)
    assert aligned.cosines.shape == (50,)
    assert aligned.cosine_centred == pytest.approx(aligned.cosines.mean())
    assert aligned.cosine_raw > aligned.cosine_centred  # the common part flatters
