"""Linear probes: the converged one against scikit-learn, and the paper's few epochs of AdamW."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pacx.errors import PacxError
from pacx.evaluation.statistics import macro_auroc
from pacx.profile import ProbeSettings
from pacx.training import probe
from pacx.training.paper_probe import _aurocs, fit_paper_probes
from pacx.training.probe import (
    FOLDS,
    STRENGTHS,
    draw_subsets,
    fit_probes,
)

SETTINGS = ProbeSettings(epochs=60, batch_size=64, learning_rate=3e-2, weight_decay=0.0)


def _wild(n, d, seed, labels=3):
    """Features on scales from 0.01 to 100 whose means are tens of their spreads, and labels."""
    world, rng = np.random.default_rng(d), np.random.default_rng(seed)
    scale, mean = 10.0 ** world.uniform(-2, 2, d), 30 * world.normal(size=d)
    mixing = world.normal(size=(d, d)) / np.sqrt(d)
    known = rng.normal(size=(n, d))
    score = 1.5 * known[:, :labels] + rng.normal(size=(n, labels)) - 0.8
    x = (known @ mixing + mean) * scale
    return x.astype(np.float32), (score > 0).astype(np.float32)


def _sklearn(x, y, strength):
    """Standardised logistic regression in 64 bit, solved as far as it goes; NaN labels left out."""
    x, known = x.astype(np.float64), ~np.isnan(y)
    scaler = StandardScaler().fit(x)
    solved = LogisticRegression(C=strength, tol=1e-10, max_iter=1000, solver="newton-cholesky")
    return make_pipeline(scaler, solved.fit(scaler.transform(x[known]), y[known]))


def _logits(probes, x, head=0):
    weight, bias = probes.weight[head].double().numpy(), probes.bias[head].double().numpy()
    return x.astype(np.float64) @ weight + bias


def _only(monkeypatch, *strengths):
    monkeypatch.setattr(probe, "STRENGTHS", strengths)


@pytest.mark.parametrize(("n", "d"), [(400, 30), (60, 8), (30, 60), (80, 160)])
def test_logits_are_sklearns(monkeypatch, n, d):
    (x, y), (test_x, _) = _wild(n, d, 1), _wild(200, d, 2)
    for strength in STRENGTHS:
        _only(monkeypatch, strength)
        probes = fit_probes((x, y), (x, y))
        ours = _logits(probes, test_x)
        theirs = [
            _sklearn(x, y[:, c], strength).decision_function(test_x.astype(np.float64))
            for c in range(3)
        ]
        np.testing.assert_allclose(ours, np.stack(theirs, 1), atol=1e-4, rtol=0)
        np.testing.assert_allclose(probes.probabilities(test_x)[0], expit(ours), atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(300, 20), (40, 90)])
def test_logits_of_exclusive_classes_are_sklearns(monkeypatch, n, d):
    (x, _), (test_x, _), rng = _wild(n, d, 1), _wild(200, d, 2), np.random.default_rng(3)
    plain = StandardScaler().fit_transform(x.astype(np.float64))
    truth = (3 * plain @ rng.normal(size=(d, 4)) / np.sqrt(d) + rng.gumbel(size=(n, 4))).argmax(1)
    y = np.eye(4, dtype=np.float32)[truth]
    for strength in STRENGTHS:
        _only(monkeypatch, strength)
        probes = fit_probes((x, y), (x, y), multiclass=True)
        theirs = _sklearn(x, truth.astype(float), strength).decision_function(test_x.astype(float))
        ours = _logits(probes, test_x)  # a constant added to all classes changes nothing
        ours, theirs = (v - v.mean(1, keepdims=True) for v in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
        np.testing.assert_allclose(
            probes.probabilities(test_x)[0], softmax(theirs, 1), atol=1e-5, rtol=0
        )
        assert (probes.loss == probes.loss[0, 0]).all()


def test_the_strength_is_the_one_of_the_lowest_validation_loss():
    """Label by label, as a search over scikit-learn's would choose."""
    (x, y), (val_x, val_y) = _wild(150, 20, 1), _wild(150, 20, 2)
    rng = np.random.default_rng(0)
    # Labels from clear to pure noise, so that different strengths are best.
    flips = rng.random(y.shape) < [0.0, 0.15, 0.5]
    y, val_flips = np.abs(y - flips), rng.random(y.shape) < [0.0, 0.15, 0.5]
    val_y = np.abs(val_y - val_flips)
    val_y[:30, 1] = np.nan
    probes, chosen = fit_probes((x, y), (val_x, val_y)), []
    for c in range(3):
        known = ~np.isnan(val_y[:, c])
        found = [_sklearn(x, y[:, c], strength) for strength in STRENGTHS]
        losses = [log_loss(val_y[known, c], f.predict_proba(val_x[known])) for f in found]
        assert np.diff(np.sort(losses))[0] > 2e-4  # the best one is not a matter of rounding
        best = int(np.argmin(losses))
        chosen.append(best)
        assert probes.loss[0, c].item() == pytest.approx(losses[best], abs=1e-4)
        np.testing.assert_allclose(
            _logits(probes, val_x)[:, c], found[best].decision_function(val_x), atol=1e-3
        )
    assert len(set(chosen)) > 1


@pytest.mark.parametrize("multiclass", [False, True])
def test_few_labels_choose_by_cross_validation_within_them(multiclass):
    """Five folds, each class dealt out in turn; the loss is that of the cases left out."""
    (x, y), d = _wild(200, 12, 1), 12
    if multiclass:
        y = np.eye(3, dtype=np.float32)[(y[:, 0] + y[:, 1]).astype(int)]
    rows = draw_subsets(y, 0.25, 2, seed=0)
    probes = fit_probes((x, y), subsets=rows, multiclass=multiclass)
    for k, chosen in enumerate(rows):
        part, labels = x[chosen].astype(np.float64), y[chosen]
        plain = StandardScaler().fit_transform(part)
        targets = [labels.argmax(1)] if multiclass else labels.T.astype(int)
        for c, target in enumerate(targets):
            fold = np.empty(len(target), int)
            for value in np.unique(target):
                fold[target == value] = np.arange((target == value).sum()) % FOLDS
            losses = []
            for strength in STRENGTHS:
                left_out = np.empty((len(target), target.max() + 1))
                for f in range(FOLDS):
                    inside = LogisticRegression(C=strength, tol=1e-10, max_iter=1000)
                    inside.fit(plain[fold != f], target[fold != f])
                    left_out[fold == f] = inside.predict_proba(plain[fold == f])
                losses.append(log_loss(target, left_out))
            assert np.diff(np.sort(losses))[0] > 1e-4
            assert probes.loss[k, c].item() == pytest.approx(min(losses), abs=1e-3)
            if not multiclass:
                best = _sklearn(part, labels[:, c], STRENGTHS[np.argmin(losses)])
                np.testing.assert_allclose(
                    _logits(probes, part, k)[:, c], best.decision_function(part), atol=1e-4
                )
    assert probes.weight.shape == (2, d, y.shape[1])


def test_heads_are_independent():
    (x, y), (test_x, _) = _wild(300, 10, 1), _wild(100, 10, 2)
    subsets = draw_subsets(y, 0.2, 3, seed=0)
    together = fit_probes((x, y), subsets=subsets).probabilities(test_x)
    for k in range(3):
        alone = fit_probes((x, y), subsets=subsets[[k]]).probabilities(test_x)
        np.testing.assert_allclose(alone[0], together[k], atol=1e-4)
        rows = fit_probes((x[subsets[k]], y[subsets[k]])).probabilities(test_x)
        np.testing.assert_allclose(rows[0], together[k], atol=1e-4)


def test_labels_do_not_influence_each_other():
    train, val, (test_x, _) = _wild(200, 10, 1), _wild(100, 10, 3), _wild(100, 10, 2)
    together = fit_probes(train, val).probabilities(test_x)[0]
    for order in ([2, 0, 1], [1], [0, 0]):
        other = fit_probes((train[0], train[1][:, order]), (val[0], val[1][:, order]))
        np.testing.assert_allclose(other.probabilities(test_x)[0], together[:, order], atol=1e-4)


def test_of_equal_strengths_the_strongest_penalty_is_kept(monkeypatch):
    (x, y), (val_x, val_y) = _wild(100, 6, 1), _wild(50, 6, 2)
    probes = fit_probes((x, y), (val_x, np.full_like(val_y, np.nan)))  # nothing to choose by
    assert (probes.loss == 0).all()
    _only(monkeypatch, STRENGTHS[0])
    strongest = fit_probes((x, y), (val_x, val_y))
    np.testing.assert_allclose(_logits(probes, x), _logits(strongest, x), atol=1e-6)


def test_unknown_labels_carry_no_loss(monkeypatch):
    (x, y), (test_x, _) = _wild(200, 10, 1), _wild(100, 10, 2)
    y[np.random.default_rng(4).random(y.shape) < 0.4] = np.nan
    _only(monkeypatch, 0.1)
    ours = _logits(fit_probes((x, y), (x, y)), test_x)
    for c in range(3):
        theirs = _sklearn(x, y[:, c], 0.1).decision_function(test_x.astype(np.float64))
        np.testing.assert_allclose(ours[:, c], theirs, atol=1e-4)


@pytest.mark.parametrize("choose", ["validation", "folds"])
def test_a_label_of_one_class_is_answered_by_its_share(choose):
    (x, y), (test_x, _) = _wild(40, 6, 1), _wild(20, 6, 2)
    alone = fit_probes((x, y[:, :1]), (x, y[:, :1]) if choose == "validation" else None)
    y = np.column_stack([y[:, 0], np.ones(40), np.zeros(40), np.full(40, np.nan)])
    y[10:, 2] = np.nan
    probes = fit_probes((x, y), (x, y) if choose == "validation" else None)
    shares = [40.5 / 41, 0.5 / 11, 0.5]
    assert (probes.weight[0, :, 1:] == 0).all()
    ours = probes.probabilities(test_x)[0]
    np.testing.assert_allclose(ours[:, 1:], np.tile(shares, (20, 1)), atol=1e-6)
    np.testing.assert_allclose(ours[:, :1], alone.probabilities(test_x)[0], atol=1e-4)
    assert probes.loss.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5, 1e-20])
def test_a_constant_feature_has_no_weight(value):
    (x, y), (test_x, _) = _wild(100, 6, 1), _wild(50, 6, 2)
    expected = fit_probes((x, y), (x, y)).probabilities(test_x)
    wider = np.insert(x, 2, np.float32(value), axis=1)
    probes = fit_probes((wider, y), (wider, y))
    assert (probes.weight[0, 2] == 0).all()
    changed = np.insert(test_x, 2, np.float32(value + 1), axis=1)
    np.testing.assert_allclose(probes.probabilities(changed), expected, atol=1e-5)


def test_nothing_but_constants_gives_the_share():
    y = np.array([[1.0], [0], [0], [0]], np.float32)
    probes = fit_probes((np.ones((4, 3)), y), (np.ones((4, 3)), y))
    np.testing.assert_allclose(probes.probabilities(np.ones((2, 3))), 0.25, atol=1e-6)


@pytest.mark.parametrize("fit", ["converged", "paper"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number_is_named(fit, bad):
    (x, y), val = _wild(50, 6, 1), _wild(20, 6, 2)
    x[31, 4] = bad
    with pytest.raises(PacxError, match="row 31, column 4"):
        fit_probes((x, y), val) if fit == "converged" else fit_paper_probes((x, y), val, SETTINGS)
    with pytest.raises(PacxError, match="row 31, column 4"):
        fit_probes(val, (x, y))


@pytest.mark.parametrize("choose", ["validation", "folds"])
def test_a_class_that_nobody_has_is_hardly_believed_in(choose):
    (x, y), (test_x, _) = _wild(120, 8, 1), _wild(100, 8, 2)
    three = np.eye(3, dtype=np.float32)[(y[:, 0] + y[:, 1]).astype(int)]
    four = np.insert(three, 1, 0, axis=1)
    val = (lambda labels: (x, labels)) if choose == "validation" else (lambda labels: None)
    ours = fit_probes((x, four), val(four), multiclass=True).probabilities(test_x)[0]
    assert np.isfinite(ours).all()
    assert ours.sum(1) == pytest.approx(1, abs=1e-5)
    assert (ours[:, 1] < 1 / 120).all()
    known = ours[:, [0, 2, 3]] / ours[:, [0, 2, 3]].sum(1, keepdims=True)
    expected = fit_probes((x, three), val(three), multiclass=True).probabilities(test_x)[0]
    np.testing.assert_allclose(known, expected, atol=1e-4)


def test_a_single_positive_among_thirty_labels():
    (x, y), (test_x, test_y) = _wild(30, 60, 1, labels=1), _wild(400, 60, 2, labels=1)
    y[:] = 0
    y[np.argmax(_sklearn(test_x, test_y[:, 0], 0.01).decision_function(x))] = 1
    ours = fit_probes((x, y)).probabilities(test_x)[0]
    assert ((ours > 0) & (ours < 1)).all()
    assert ours.mean() == pytest.approx(1 / 30, abs=0.05)


@pytest.mark.parametrize("n", [20, 400])
def test_separable_data_stay_finite(n):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    y = (x[:, :2] > 0).astype(np.float32)
    probes = fit_probes((x, y), (x, y))
    assert probes.weight.abs().max() < 1e3
    ours = probes.probabilities(x)[0]
    assert ((ours > 0.5) == y).mean() > 0.97
    theirs = _sklearn(x, y[:, 0], STRENGTHS[-1])  # the weakest penalty is the best one here
    np.testing.assert_allclose(_logits(probes, x)[:, 0], theirs.decision_function(x), atol=1e-4)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-12, 12), min_size=5, max_size=5),
    st.lists(st.floats(-20, 20), min_size=5, max_size=5),
)
def test_units_and_zeros_of_features_do_not_matter(powers, shifts):
    (x, y), (test_x, _) = _wild(60, 5, 1), _wild(50, 5, 2)
    centre, spread = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)

    def moved(features):
        return ((features - centre) / spread + shifts) * 10.0 ** np.array(powers)

    expected = fit_probes((x, y), (x, y)).probabilities(test_x)
    other = fit_probes((moved(x), y), (moved(x), y)).probabilities(moved(test_x))
    np.testing.assert_allclose(other, expected, atol=1e-4)


def test_hard_cases_converge(monkeypatch):
    """768 features that are mixtures of 60: the gradient is far below scikit-learn's tolerance."""
    rng = np.random.default_rng(0)
    known, mixing = rng.normal(size=(3000, 60)), rng.normal(size=(60, 768))
    x = (known @ mixing + 0.1 * rng.normal(size=(3000, 768))).astype(np.float32)
    y = (known[:, :2] + rng.normal(size=(3000, 2)) > 1).astype(np.float32)
    for strength in (STRENGTHS[0], STRENGTHS[-1]):
        _only(monkeypatch, strength)
        probes = fit_probes((x, y), (x[:10], y[:10]))
        x64 = x.astype(np.float64)
        spread = x64.std(0)
        plain = (x64 - x64.mean(0)) / spread
        error = expit(_logits(probes, x)) - y
        weight = probes.weight[0].double().numpy() * spread[:, None]
        gradient = plain.T @ error + weight / strength
        assert np.abs(gradient).max() / len(x) < 1e-6  # theirs: 1e-4
        assert np.abs(error.sum(0)).max() / len(x) < 1e-6


def _cases(n: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    truth = x @ np.array([[2, 0], [0, -2], [1, 1], [0, 0], [0, 0], [0, 0]])
    return x, (truth + noise * rng.normal(size=(n, 2)) > 0).astype(np.float32)


def test_paper_probe_is_near_logistic_regression():
    train, val, (test_x, test_y) = _cases(600, 1), _cases(200, 2), _cases(500, 3)
    ours = fit_paper_probes(train, val, SETTINGS).probabilities(test_x)[0]
    for c in range(2):
        sklearn = LogisticRegression().fit(train[0], train[1][:, c]).predict_proba(test_x)[:, 1]
        scores = roc_auc_score(test_y[:, c], ours[:, c]), roc_auc_score(test_y[:, c], sklearn)
        assert scores[0] == pytest.approx(scores[1], abs=0.01)
        assert np.abs(ours[:, c] - sklearn).mean() < 0.05


def test_paper_probe_separates_separable_data():
    test_x, test_y = _cases(300, 3, noise=0.0)
    probes = fit_paper_probes(_cases(600, 1, noise=0.0), _cases(200, 2, noise=0.0), SETTINGS)
    ours = probes.probabilities(test_x)[0]
    assert ((ours > 0.5) == test_y).mean() > 0.97


def test_paper_probe_of_exclusive_classes():
    x, y = _cases(400, 1, noise=0.0)
    classes = np.eye(4, dtype=np.float32)[(2 * y[:, 0] + y[:, 1]).astype(int)]
    ours = fit_paper_probes((x, classes), (x, classes), SETTINGS, multiclass=True).probabilities(x)[
        0
    ]
    assert ours.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (ours.argmax(axis=1) == classes.argmax(axis=1)).mean() > 0.95


def test_paper_probe_has_independent_heads():
    train, val, (test_x, _) = _cases(300, 1), _cases(100, 2), _cases(100, 3)
    subsets = draw_subsets(train[1], 0.4, 3, seed=0)
    together = fit_paper_probes(train, val, SETTINGS, subsets=subsets).probabilities(test_x)
    for k in range(3):
        alone = fit_paper_probes(train, val, SETTINGS, subsets=subsets[[k]]).probabilities(test_x)
        np.testing.assert_allclose(alone[0], together[k], atol=1e-4)


def test_one_of_the_views_is_drawn_for_each_case_and_step():
    (x, y), val, (test_x, _) = _cases(300, 1), _cases(100, 2), _cases(100, 3)
    alone = fit_paper_probes((x, y), val, SETTINGS)
    for views in (x[None], np.stack([x, x])):  # where all are equal, the draw does not matter
        assert fit_paper_probes((views, y), val, SETTINGS).weight.equal(alone.weight)
    mirrored = x * np.array([1, 1, 1, 1, 1, -1], np.float32)
    x[:, 5] += 2 * y[:, 0]  # a hint that one view shows on the other side
    mirrored[:, 5] -= 2 * y[:, 0]
    one = fit_paper_probes((x, y), val, SETTINGS).weight[0, 5, 0]
    both = fit_paper_probes((np.stack([x, mirrored]), y), val, SETTINGS).weight[0, 5, 0]
    assert abs(both) < 0.2 * abs(one)
    subsets = draw_subsets(y, 0.4, 2, seed=0)
    heads = fit_paper_probes((np.stack([x, mirrored]), y), val, SETTINGS, subsets=subsets)
    head = fit_paper_probes((np.stack([x, mirrored]), y), val, SETTINGS, subsets=subsets[[1]])
    np.testing.assert_allclose(
        heads.probabilities(test_x)[1], head.probabilities(test_x)[0], atol=1e-4
    )


def test_paper_probe_gives_unknown_labels_no_loss():
    (x, y), val, (test_x, _) = _cases(300, 1), _cases(100, 2), _cases(100, 3)
    unknown = np.random.default_rng(4).random(300) < 0.5
    partly = y.copy()
    partly[unknown, 0] = np.nan
    ours = fit_paper_probes((x, partly), val, SETTINGS).probabilities(test_x)[0]
    assert np.isfinite(ours).all()
    # What the unknown labels might be cannot matter: the other label's probe is nearly the same.
    full = fit_paper_probes((x, y), val, SETTINGS).probabilities(test_x)[0]
    assert np.abs(ours[:, 1] - full[:, 1]).mean() < 0.05
    nothing = np.full_like(y, np.nan)
    assert fit_paper_probes((x, nothing), val, SETTINGS).probabilities(test_x)[0] == pytest.approx(
        0.5
    )


def test_the_best_epoch_is_kept():
    """With a learning rate that ruins the probe, more epochs must not hurt the kept one."""
    train, val, (test_x, test_y) = _cases(600, 1), _cases(200, 2), _cases(500, 3)
    wild = SETTINGS.model_copy(update={"learning_rate": 50.0, "epochs": 30})
    once = wild.model_copy(update={"epochs": 1})
    scores = [
        roc_auc_score(
            test_y, fit_paper_probes(train, val, s).probabilities(test_x)[0], average="macro"
        )
        for s in (once, wild)
    ]
    assert scores[1] >= scores[0] - 0.02


def test_without_a_validation_auroc_the_last_epoch_is_kept():
    train, (val_x, val_y), (test_x, test_y) = _cases(600, 1), _cases(50, 2), _cases(500, 3)
    ours = fit_paper_probes(train, (val_x, np.ones_like(val_y)), SETTINGS).probabilities(test_x)[0]
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
