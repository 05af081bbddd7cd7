"""The temperature, held against known truth, and the file of a probe."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from pacx.errors import PacxError
from pacx.share.calibration import CalibratedProbe, fit_temperature, load_probe


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
    measured = {"Brier": [0.1, 0.0, 0.2]}
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


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 10**400}, "too large"),
        ({"classes": ("a", "a")}, "names that differ"),
        ({"classes": ("a", 1)}, "not a probe"),
        ({"classes": ("a", "b", "c")}, "does not fit 3 classes"),
        ({"multiclass": "no"}, "neither true nor false"),
        ({"measured": {"Brier": [0.1]}}, "value, low, high"),
        ({"weight": np.full((6, 2), np.nan)}, "not finite"),
        ({"weight": np.zeros((7, 2))}, "6 channels"),
        ({"bias": np.zeros(3)}, "does not fit 2 classes"),
    ],
)
def test_a_probe_that_cannot_be_is_refused(tmp_path, spoil, said):
    probe = CalibratedProbe("tb", ("a", "b"), False, np.zeros((6, 2)), np.zeros(2), 2.0, {})
    replace(probe, **spoil).save(tmp_path / "tb.safetensors")
    with pytest.raises(PacxError, match=said):
        load_probe(tmp_path / "tb.safetensors", 6)
