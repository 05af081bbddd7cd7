import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pacx.errors import PacxError
from pacx.evaluation.probe import _aurocs, draw_subsets, fit_probes
from pacx.evaluation.statistics import macro_auroc
from pacx.profile import ProbeSettings

SETTINGS = ProbeSettings(epochs=60, batch_size=64, learning_rate=3e-2, weight_decay=0.0)


def _cases(n: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    truth = x @ np.array([[2, 0], [0, -2], [1, 1], [0, 0], [0, 0], [0, 0]])
    return x, (truth + noise * rng.normal(size=(n, 2)) > 0).astype(np.float32)


def test_as_good_as_logistic_regression():
    train, val, (test_x, test_y) = _cases(600, 1), _cases(200, 2), _cases(500, 3)
    ours = fit_probes(train, val, SETTINGS).probabilities(test_x)[0]
    for c in range(2):
        sklearn = LogisticRegression().fit(train[0], train[1][:, c]).predict_proba(test_x)[:, 1]
        scores = roc_auc_score(test_y[:, c], ours[:, c]), roc_auc_score(test_y[:, c], sklearn)
        assert scores[0] == pytest.approx(scores[1], abs=0.01)
        assert np.abs(ours[:, c] - sklearn).mean() < 0.05


def test_separable_data_are_separated():
    test_x, test_y = _cases(300, 3, noise=0.0)
    probes = fit_probes(_cases(600, 1, noise=0.0), _cases(200, 2, noise=0.0), SETTINGS)
    ours = probes.probabilities(test_x)[0]
    assert ((ours > 0.5) == test_y).mean() > 0.97


def test_multiclass_probabilities():
    x, y = _cases(400, 1, noise=0.0)
    classes = np.eye(4, dtype=np.float32)[(2 * y[:, 0] + y[:, 1]).astype(int)]
    ours = fit_probes((x, classes), (x, classes), SETTINGS, multiclass=True).probabilities(x)[0]
    assert ours.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (ours.argmax(axis=1) == classes.argmax(axis=1)).mean() > 0.95


def test_heads_are_independent():
    train, val, (test_x, _) = _cases(300, 1), _cases(100, 2), _cases(100, 3)
    subsets = draw_subsets(train[1], 0.4, 3, seed=0)
    together = fit_probes(train, val, SETTINGS, subsets=subsets).probabilities(test_x)
    for k in range(3):
        alone = fit_probes(train, val, SETTINGS, subsets=subsets[[k]]).probabilities(test_x)
        np.testing.assert_allclose(alone[0], together[k], atol=1e-4)


def test_one_of_the_views_is_drawn_for_each_case_and_step():
    (x, y), val, (test_x, _) = _cases(300, 1), _cases(100, 2), _cases(100, 3)
    alone = fit_probes((x, y), val, SETTINGS)
    for views in (x[None], np.stack([x, x])):  # where all are equal, the draw does not matter
        assert fit_probes((views, y), val, SETTINGS).weight.equal(alone.weight)
    mirrored = x * np.array([1, 1, 1, 1, 1, -1], np.float32)
    x[:, 5] += 2 * y[:, 0]  # a hint that one view shows on the other side
    mirrored[:, 5] -= 2 * y[:, 0]
    one = fit_probes((x, y), val, SETTINGS).weight[0, 5, 0]
    both = fit_probes((np.stack([x, mirrored]), y), val, SETTINGS).weight[0, 5, 0]
    assert abs(both) < 0.2 * abs(one)
    subsets = draw_subsets(y, 0.4, 2, seed=0)
    heads = fit_probes((np.stack([x, mirrored]), y), val, SETTINGS, subsets=subsets)
    head = fit_probes((np.stack([x, mirrored]), y), val, SETTINGS, subsets=subsets[[1]])
    np.testing.assert_allclose(
        heads.probabilities(test_x)[1], head.probabilities(test_x)[0], atol=1e-4
    )


def test_unknown_labels_carry_no_loss():
    (x, y), val, (test_x, _) = _cases(300, 1), _cases(100, 2), _cases(100, 3)
    unknown = np.random.default_rng(4).random(300) < 0.5
    partly = y.copy()
    partly[unknown, 0] = np.nan
    ours = fit_probes((x, partly), val, SETTINGS).probabilities(test_x)[0]
    assert np.isfinite(ours).all()
    # What the unknown labels might be cannot matter: the other label's probe is nearly the same.
    full = fit_probes((x, y), val, SETTINGS).probabilities(test_x)[0]
    assert np.abs(ours[:, 1] - full[:, 1]).mean() < 0.05
    nothing = np.full_like(y, np.nan)
    assert fit_probes((x, nothing), val, SETTINGS).probabilities(test_x)[0] == pytest.approx(0.5)


def test_the_best_epoch_is_kept():
    """With a learning rate that ruins the probe, more epochs must not hurt the kept one."""
    train, val, (test_x, test_y) = _cases(600, 1), _cases(200, 2), _cases(500, 3)
    wild = SETTINGS.model_copy(update={"learning_rate": 50.0, "epochs": 30})
    once = wild.model_copy(update={"epochs": 1})
    scores = [
        roc_auc_score(test_y, fit_probes(train, val, s).probabilities(test_x)[0], average="macro")
        for s in (once, wild)
    ]
    assert scores[1] >= scores[0] - 0.02


def test_without_a_validation_auroc_the_last_epoch_is_kept():
    train, (val_x, val_y), (test_x, test_y) = _cases(600, 1), _cases(50, 2), _cases(500, 3)
    ours = fit_probes(train, (val_x, np.ones_like(val_y)), SETTINGS).probabilities(test_x)[0]
    assert roc_auc_score(test_y, ours, average="macro") > 0.8


def test_draws_keep_every_class():
    rng = np.random.default_rng(0)
    labels = (rng.random((500, 4)) < [0.02, 0.5, 0.97, 0.1]).astype(np.float32)
    subsets = draw_subsets(labels, 0.02, 20, seed=3)
    assert subsets.shape == (20, 10)
    for rows in subsets:
        assert len(set(rows)) == 10
        assert (labels[rows] == 1).any(axis=0).all()
        assert (labels[rows] == 0).any(axis=0).all()
    assert (draw_subsets(labels, 0.02, 20, seed=3) == subsets).all()
    assert (draw_subsets(labels, 0.02, 20, seed=4) != subsets).any()
    assert len({tuple(sorted(rows)) for rows in subsets}) == 20


def test_a_share_too_small_is_refused():
    labels = np.eye(25, dtype=np.float32).repeat(10, axis=0)
    with pytest.raises(PacxError, match=r"label_efficiency\.fractions"):
        draw_subsets(labels, 0.01, 1, seed=0)


def test_ranks_give_the_same_validation_auroc_as_sorting_head_by_head():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (60, 4)).astype(np.float32)
    truth[rng.random(truth.shape) < 0.2] = np.nan
    truth[:, 3] = 1  # one class only: left out by both
    scores = rng.integers(0, 9, (5, 60, 4)) / 8  # many ties
    expected = [macro_auroc(truth, s, np.ones((1, 60)))[0] for s in scores]
    assert _aurocs(truth, scores) == pytest.approx(expected, abs=1e-12)
