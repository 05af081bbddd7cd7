import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from pacx.evaluation.statistics import (
    Estimate,
    bootstrap_weights,
    fast_auroc,
    interval,
    macro_auroc,
    macro_f1,
    mean_over_cases,
    paired_table,
    verdict,
)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_equals_sklearn(ties):
    rng = np.random.default_rng(1)
    truth = rng.random(300) < 0.3
    scores = rng.normal(size=300) + truth
    scores = scores.round(0) if ties else scores
    ours = fast_auroc(truth.astype(float), scores, np.ones((1, 300)))
    assert ours[0] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_weights_are_repeated_cases():
    rng = np.random.default_rng(2)
    truth = (rng.random(200) < 0.4).astype(float)
    scores = (rng.normal(size=200) + truth).round(1)
    weights = rng.integers(0, 4, size=(5, 200)).astype(np.float32)
    for row, value in zip(weights, fast_auroc(truth, scores, weights), strict=True):
        repeats = row.astype(int)
        expected = roc_auc_score(np.repeat(truth, repeats), np.repeat(scores, repeats))
        assert value == pytest.approx(expected, abs=1e-6)


def test_one_class_has_no_auroc_and_leaves_the_mean():
    truth = np.array([[1, 1], [0, 1], [1, 1], [0, 1]], float)
    scores = np.array([[0.9, 0.1], [0.2, 0.2], [0.8, 0.3], [0.1, 0.4]])
    once = np.ones((1, 4))
    assert np.isnan(fast_auroc(truth[:, 1], scores[:, 1], once)[0])
    assert macro_auroc(truth, scores, once)[0] == 1.0


def test_unknown_labels_do_not_count():
    rng = np.random.default_rng(3)
    truth = (rng.random((100, 2)) < 0.5).astype(float)
    scores, known = rng.random((100, 2)), np.arange(100) >= 40
    masked = np.where(known[:, None], truth, np.nan)
    once = np.ones((1, 100))
    part = np.ones((1, 60))
    for macro, guess in ((macro_auroc, scores), (macro_f1, scores > 0.5)):
        expected = macro(truth[known], guess[known], part)
        assert macro(masked, guess, once) == pytest.approx(expected)


def test_f1_equals_sklearn():
    rng = np.random.default_rng(4)
    truth = (rng.random((150, 3)) < 0.3).astype(float)
    decisions = rng.random((150, 3)) < [0.3, 0.6, 0.0]
    weights = rng.integers(0, 3, size=(4, 150)).astype(np.float32)
    for row, value in zip(weights, macro_f1(truth, decisions, weights), strict=True):
        expected = f1_score(truth, decisions, average="macro", sample_weight=row, zero_division=0)
        assert value == pytest.approx(expected, abs=1e-6)


def test_bootstrap_keeps_a_patients_images_together():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    weights = bootstrap_weights(patients, 50, seed=0)
    assert (weights[:, [0]] == weights[:, [2, 5]]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()  # as many draws as patients


def _intervals(shift: float, data_sets: int = 200, cases: int = 120) -> list[Estimate]:
    rng = np.random.default_rng(5)
    estimates = []
    for k in range(data_sets):
        difference = rng.normal(shift, 1.0, cases)
        weights = bootstrap_weights(np.arange(cases), 200, seed=k)
        estimates.append(mean_over_cases(difference, weights))
    return estimates


def test_null_coverage():
    covered = np.mean([e.low <= 0 <= e.high for e in _intervals(0.0)])
    assert 0.91 <= covered <= 0.99


def test_a_planted_effect_is_found():
    found = [verdict(e) for e in _intervals(0.5, data_sets=30)]
    assert found.count("above zero") >= 29


def test_coverage_of_a_paired_auroc_difference():
    """Two equally good scores on the same cases: the interval of their difference holds zero."""
    rng, covered = np.random.default_rng(6), 0
    once = np.ones((1, 150), np.float32)
    for k in range(100):
        truth = (rng.random(150) < 0.4).astype(float)
        shared = rng.normal(size=150) + truth
        first, second = shared + rng.normal(size=(2, 150))
        weights = bootstrap_weights(np.arange(150), 200, seed=k)
        both = [[fast_auroc(truth, s, w) for s in (first, second)] for w in (once, weights)]
        point, spread = (b - a for a, b in both)
        estimate = interval(point[0], spread)
        covered += estimate.low <= 0 <= estimate.high
    assert covered / 100 >= 0.88


def test_paired_table_resamples_pairs():
    """Two scores that move together differ by a constant, however wide each one's interval is."""
    spread = np.random.default_rng(7).normal(size=500)
    values = {"mae": (0.0, spread), "pacx": (0.25, spread + 0.25)}
    table = paired_table(["mae", "pacx"], "mae", values.__getitem__, dataset="d").set_index("model")
    assert table.loc["mae", "high"] - table.loc["mae", "low"] > 3
    assert table.loc["pacx", "difference_low"] == pytest.approx(0.25)
    assert table.loc["pacx", "difference_high"] == pytest.approx(0.25)
    assert np.isnan(table.loc["mae", "difference_value"])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.02, "above zero"),
        (-0.02, -0.01, "below zero"),
        (-0.01, 0.01, "not distinguishable from zero"),
    ],
)
def test_verdict(low, high, words):
    assert verdict(Estimate((low + high) / 2, low, high)) == words
