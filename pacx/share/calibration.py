"""Do the probes' probabilities mean what they say? Temperature, reliability, calibration error."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax

from pacx.data.table import Dataset
from pacx.errors import PacxError
from pacx.evaluation.statistics import Estimate, bootstrap_weights
from pacx.evaluation.transfer import probe_scores, train_probes
from pacx.files import new_file
from pacx.run import Run
from pacx.training.probe import labels_of

BINS = 10


@dataclass(frozen=True)
class CalibratedProbe:
    """A linear layer on the CLS token as it comes, with the temperature that divides its logits.

    Attributes:
        dataset: Whose labels it learned.
        classes: C names.
        multiclass: Whether exactly one of the classes is right.
        weight: (D, C) float32.
        bias: (C,) float32.
        temperature: From the validation split; above 1 the probe was too sure.
        measured: On the test split: metric -> [value, low, high].
    """

    dataset: str
    classes: tuple[str, ...]
    multiclass: bool
    weight: np.ndarray
    bias: np.ndarray
    temperature: float
    measured: dict[str, list[float]]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (N, C) of CLS tokens (N, D)."""
        # Features may be far from 0 beside their spread: 32 bit would cancel.
        logits = features.astype(np.float64) @ self.weight + self.bias
        return _probabilities(logits, self.temperature, self.multiclass)

    def save(self, path: Path) -> None:
        """Write one safetensors file; everything that is not an array is in its header."""
        about = {
            "dataset": self.dataset, "classes": self.classes, "multiclass": self.multiclass,
            "temperature": self.temperature, "measured": self.measured,
        }  # fmt: skip
        arrays = {
            name: np.ascontiguousarray(array, np.float32)
            for name, array in (("weight", self.weight), ("bias", self.bias))
        }
        with new_file(path) as partial:
            save_file(arrays, partial, metadata={"probe": json.dumps(about)})


def load_probe(path: str | Path) -> CalibratedProbe:
    """Read what `CalibratedProbe.save` wrote.

    Raises:
        PacxError: The file is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            about = json.loads(file.metadata()["probe"])
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        about["classes"] = tuple(about["classes"])
        return CalibratedProbe(weight=weight, bias=bias, **about)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise PacxError(
            f"{path} is not a probe that pacx exported ({error}). Export the encoder again."
        ) from error


def train_calibrated_probe(run: Run, dataset: Dataset, model: str) -> CalibratedProbe:
    """The converged probe on the CLS token and all training labels, with its calibration.

    The features' standardisation is part of its weight and bias.

    Args:
        run: The run.
        dataset: A benchmark with labels for images.
        model: See `pacx.evaluation.features.encoder_of`.
    """
    probes = train_probes(run, dataset, model)
    table = calibration(run, dataset, model)
    macro = table[table["task"] == "macro"].set_index("metric")
    return CalibratedProbe(
        dataset.name, dataset.labels, probes.multiclass,
        weight=probes.weight[0].numpy(),
        bias=probes.bias[0, 0].numpy(),
        temperature=float(table["temperature"].iloc[0]),
        measured={m: macro.loc[m, ["value", "low", "high"]].tolist() for m in macro.index},
    )  # fmt: skip


def calibration(run: Run, dataset: Dataset, model: str) -> pd.DataFrame:
    """Expected calibration error of the converged probe on the CLS token, before and after.

    Before: as trained. After: at the temperature that is best on the validation split, whose labels
    have also chosen the strength of the probe's penalty. Both are measured on the test split.

    Args:
        run: The run.
        dataset: A benchmark with labels for images.
        model: See `pacx.evaluation.features.encoder_of`.

    Returns:
        One row a label and metric (`ECE`, and `ECE, calibrated`), and the mean over labels as the
        task `macro`: dataset, task, model, metric, temperature, value, low, high (see
        `error_estimate`), `uncorrected`, and `chance`: a perfect probe stays below it in 95 of 100
        draws of as many images.
    """
    multiclass = dataset.task == "multiclass"
    logits = {
        split: _logits(probe_scores(run, dataset, model, split=split)[0], multiclass)
        for split in ("val", "test")
    }
    temperature = fit_temperature(logits["val"], labels_of(dataset, "val"), multiclass)
    truth = labels_of(dataset, "test")
    patients = dataset.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    once = np.ones((1, len(truth)), np.float32)
    rng = np.random.default_rng(run.profile.seed)
    rows = []
    for metric, t in {"ECE": 1.0, "ECE, calibrated": temperature}.items():
        scores = _probabilities(logits["test"], t, multiclass)
        points, spreads, chances = [], [], []
        for c in range(truth.shape[1]):
            known = ~np.isnan(truth[:, c])
            if not known.any():
                continue
            y, p, drawn = truth[known, c], scores[known, c], weights[:, known]
            points.append(calibration_error(y, p, once[:, known])[0])
            spreads.append(calibration_error(y, p, drawn))
            chances.append(chance_errors(p, rng))
            rows.append((metric, dataset.labels[c], points[-1], spreads[-1], chances[-1]))
        means = (np.mean(part, axis=0) for part in (points, spreads, chances))
        rows.append((metric, "macro", *means))
    return pd.DataFrame(
        [
            {
                "dataset": dataset.name, "task": task, "model": model, "metric": metric,
                "temperature": temperature,
                **error_estimate(point, spread, chance)._asdict(),
                "uncorrected": point, "chance": np.quantile(chance, 0.95),
            }
            for metric, task, point, spread, chance in rows
        ]
    )  # fmt: skip


def error_estimate(point: float, resampled: np.ndarray, chance: np.ndarray) -> Estimate:
    """A calibration error less the part that comes from few images, with a 95 % interval.

    A mean of absolute values is too large in a sample, and larger still in resamples of it: their
    percentiles may leave out even the sample's own value. So the resamples' excess is taken off
    once, and the interval is mirrored at the sample's value (the basic bootstrap). Where a perfect
    probe would show as much by chance, the interval begins at 0.

    Args:
        point: Error of the sample.
        resampled: (R,) errors of the resamples.
        chance: (K,) errors of a perfect probe, from `chance_errors`.
    """
    high, low = 2 * point - np.nanpercentile(resampled, [2.5, 97.5])
    if point <= np.quantile(chance, 0.95):
        low = 0.0
    value = 2 * point - np.nanmean(resampled)
    return Estimate(max(0.0, float(value)), max(0.0, float(low)), max(0.0, float(high)))


def fit_temperature(logits: np.ndarray, truth: np.ndarray, multiclass: bool) -> float:
    """The temperature with the lowest negative log-likelihood (Guo et al. 2017).

    Args:
        logits: (N, C), of a split that no weight was fitted on.
        truth: (N, C), 1, 0 or NaN = unknown.
        multiclass: Whether exactly one of the C labels is 1.

    Returns:
        Between 0.05 and 20. 1 where only one class is known: nothing can be chosen by it.
    """
    known = ~np.isnan(truth)
    if len(np.unique(truth[known])) < 2:
        return 1.0

    def loss(log_temperature: float) -> float:
        z = logits / np.exp(log_temperature)
        if multiclass:
            return -(truth * log_softmax(z, axis=1)).sum()
        return -np.where(truth == 1, log_expit(z), log_expit(-z))[known].sum()

    limits = np.log([0.05, 20])
    return float(np.exp(minimize_scalar(loss, bounds=limits, method="bounded").x))


def reliability(truth: np.ndarray, scores: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Predicted against observed shares, in bins of equally many images.

    Args:
        truth: (N,) 1, 0 or NaN = unknown.
        scores: (N,) probabilities.
        bins: At most; scores that tie stay together.

    Returns:
        One row a bin: `predicted` (mean probability), `observed` (share of positives), `images`.
    """
    known = ~np.isnan(truth)
    table = pd.DataFrame({"predicted": scores[known], "observed": truth[known]})
    table["bin"] = _bin_of(scores[known], bins)
    groups = table.groupby("bin")
    return groups.mean().assign(images=groups.size()).reset_index(drop=True)


def calibration_error(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray, bins: int = BINS
) -> np.ndarray:
    """Expected calibration error under many case weightings at once.

    The mean distance between predicted and observed shares over bins of equally many images, each
    bin counted by its images; the bins are those of the unweighted cases.

    Args:
        truth: (N,) 0/1.
        scores: (N,) probabilities.
        weights: (R, N) non-negative.
        bins: See `reliability`.

    Returns:
        (R,); NaN where a resample is empty.
    """
    residual = _in_bins(scores, bins) * (scores - truth)[:, None]
    total = weights.sum(axis=1)
    return np.abs(weights @ residual).sum(axis=1) / np.where(total > 0, total, np.nan)


def chance_errors(
    scores: np.ndarray, rng: np.random.Generator, draws: int = 500, bins: int = BINS
) -> np.ndarray:
    """Calibration errors of a perfect probe on as many images: what small numbers alone do.

    Args:
        scores: (N,) probabilities, taken to be true.
        rng: Draws the labels.
        draws: How often.
        bins: See `reliability`.

    Returns:
        (draws,).
    """
    labels = rng.random((draws, len(scores))) < scores
    return np.abs((scores - labels) @ _in_bins(scores, bins)).sum(axis=1) / len(scores)


def _in_bins(scores: np.ndarray, bins: int) -> np.ndarray:
    """(N, B) float: 1 where a case is in a bin."""
    index = _bin_of(scores, bins)
    return (index[:, None] == np.arange(index.max() + 1)).astype(float)


def _bin_of(scores: np.ndarray, bins: int) -> np.ndarray:
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, scores, side="left"), return_inverse=True)[1]


def _logits(probabilities: np.ndarray, multiclass: bool) -> np.ndarray:
    p = np.asarray(probabilities, np.float64)
    tiny = np.finfo(np.float32).tiny
    if multiclass:  # up to a constant for each image, which a softmax ignores
        return np.log(np.maximum(p, tiny))
    # A float32 below 1 is at most 1 - 2 ** -24.
    return np.log(np.maximum(p, tiny)) - np.log(np.maximum(1 - p, 2.0**-24))


def _probabilities(logits: np.ndarray, temperature: float, multiclass: bool) -> np.ndarray:
    logits = logits / temperature
    return softmax(logits, axis=1) if multiclass else expit(logits)
