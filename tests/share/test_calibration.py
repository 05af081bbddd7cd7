"""Temperature, reliability and calibration error, held against known truth."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from pacx.errors import PacxError
from pacx.evaluation.statistics import bootstrap_weights
from pacx.share.calibration import (
    CalibratedProbe,
    calibration_error,
    chance_errors,
    error_estimate,
    fit_temperature,
    load_probe,
    reliability,
)


def draw(n, too_sure, seed=0):
    """Probabilities whose logits are `too_sure` times the true ones, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 1.2, n)
    labels = (rng.random(n) < expit(logits)).astype(float)
    return too_sure * logits, labels


@pytest.mark.parametrize("too_sure", [0.5, 1.0, 3.0])
def test_temperature_undoes_what_was_too_sure(too_sure):
    logits, labels = draw(40_000, too_sure)
    found = fit_temperature(logits[:, None], labels[:, None], multiclass=False)
    assert found == pytest.approx(too_sure, rel=0.05)


def test_temperature_of_classes():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (20_000, 4))
    chosen = (softmax(logits, axis=1).cumsum(1) < rng.random((20_000, 1))).sum(1)
    found = fit_temperature(2 * logits, np.eye(4)[chosen], multiclass=True)
    assert found == pytest.approx(2, rel=0.05)


def test_temperature_ignores_unknown_labels_and_stays_where_nothing_is_known():
    logits, labels = draw(2000, 2.0)
    some = labels.copy()
    some[::3] = np.nan
    kept = ~np.isnan(some)
    assert fit_temperature(logits[:, None], some[:, None], False) == pytest.approx(
        fit_temperature(logits[kept, None], labels[kept, None], False)
    )
    assert fit_temperature(logits[:, None], np.ones((2000, 1)), False) == 1


def test_reliability_bins_hold_equally_many_images_and_all_of_them():
    logits, labels = draw(1000, 1.0)
    table = reliability(labels, expit(logits))
    assert table["images"].tolist() == [100] * 10
    assert (table["predicted"].diff().dropna() > 0).all()
    share = (table["observed"] * table["images"]).sum() / 1000
    assert share == pytest.approx(labels.mean())
    assert len(reliability(labels, np.full(1000, 0.3))) == 1  # ties stay together
    labels[:400] = np.nan
    assert reliability(labels, expit(logits))["images"].sum() == 600


def test_calibration_error_is_the_mean_distance_of_the_bins():
    logits, labels = draw(600, 2.5)
    scores = expit(logits)
    table = reliability(labels, scores)
    by_hand = (table["predicted"] - table["observed"]).abs().to_numpy() @ table["images"] / 600
    assert calibration_error(labels, scores, np.ones((1, 600)))[0] == pytest.approx(by_hand)


def test_a_resample_is_a_weighting():
    logits, labels = draw(300, 2.0)
    scores = expit(logits)
    weights = bootstrap_weights(np.arange(300) // 2, 3, seed=0)
    assert calibration_error(labels, scores, weights).shape == (3,)
    assert calibration_error(labels, scores, 7 * weights) == pytest.approx(
        calibration_error(labels, scores, weights)
    )
    assert np.isnan(calibration_error(labels, scores, np.zeros((1, 300)))[0])


@pytest.mark.parametrize("too_sure", [1.0, 2.5])
def test_intervals_hold_the_truth_nearly_as_often_as_they_say(too_sure):
    """Percentile intervals of this error would hold the truth of a perfect probe never."""
    logits, labels = draw(200_000, too_sure, seed=5)
    truth = calibration_error(labels, expit(logits), np.ones((1, 200_000)))[0]
    truth = 0 if too_sure == 1 else truth  # what is left is chance
    rng, held = np.random.default_rng(0), 0
    for seed in range(60):
        logits, labels = draw(400, too_sure, seed)
        scores = expit(logits)
        point = calibration_error(labels, scores, np.ones((1, 400)))[0]
        spread = calibration_error(labels, scores, bootstrap_weights(np.arange(400), 100, seed))
        found = error_estimate(point, spread, chance_errors(scores, rng, 100))
        assert found.low <= found.value <= found.high
        held += found.low <= truth <= found.high
    assert held >= 50


def test_features_far_from_zero_are_not_rounded_away():
    """A probe of standardised features on raw ones: the spread is small beside the mean."""
    rng = np.random.default_rng(0)
    features = (80 + 1e-3 * rng.normal(size=(50, 6))).astype(np.float32)
    weight = (1e3 * rng.normal(size=(6, 1))).astype(np.float32)
    bias = (-80 * weight.astype(float).sum(0)).astype(np.float32)
    probe = CalibratedProbe("own", ("a",), False, weight, bias, 1.0, {})
    exact = expit(features.astype(float) @ weight.astype(float) + bias.astype(float))
    assert probe.probabilities(features) == pytest.approx(exact, abs=1e-6)


def test_probe_survives_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(6, 2)).astype(np.float32), np.zeros(2, np.float32)
    measured = {"ECE": [0.1, 0.0, 0.2]}
    probe = CalibratedProbe("tb", ("a", "b"), False, weight, bias, 2.0, measured)
    probe.save(tmp_path / "probes" / "tb.safetensors")
    again = load_probe(tmp_path / "probes" / "tb.safetensors")
    features = rng.normal(size=(5, 6)).astype(np.float32)
    assert again.classes == ("a", "b")
    assert again.measured == measured
    assert again.probabilities(features) == pytest.approx(expit(features @ weight / 2))
    (tmp_path / "probes" / "tb.safetensors").write_bytes(b"no probe")
    with pytest.raises(PacxError, match="not a probe that pacx exported"):
        load_probe(tmp_path / "probes" / "tb.safetensors")
    with pytest.raises(PacxError, match="not a probe that pacx exported"):
        load_probe(tmp_path / "nothing.safetensors")
