"""Do the probes' probabilities mean what they say? Temperature and Brier score."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax

from pacx.data.table import Dataset
from pacx.errors import PacxError
from pacx.evaluation.baselines import features_of
from pacx.evaluation.statistics import bootstrap_weights, interval
from pacx.evaluation.transfer import train_probes
from pacx.files import new_file
from pacx.models.checkpoints import MALFORMED, read_finite, read_header
from pacx.run import Run
from pacx.training.probe import labels_of


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
        logits = self.logits(features) / self.temperature
        return softmax(logits, axis=1) if self.multiclass else expit(logits)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits (N, C) of CLS tokens (N, D), before the temperature."""
        # Features may be far from 0 beside their spread: 32 bit would cancel.
        return features.astype(np.float64) @ self.weight + self.bias

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


def load_probe(path: str | Path, width: int | None = None) -> CalibratedProbe:
    """Read what `CalibratedProbe.save` wrote; `width` is the D that it must take, if known.

    Raises:
        PacxError: The file is missing or damaged, is for another encoder, or says something
            impossible.
    """
    path = Path(path)
    try:
        tensors, texts = read_header(path)
        about = json.loads(texts["probe"])
        classes, about["temperature"] = about["classes"], float(about["temperature"])
        if not classes or len(set(classes)) < len(classes) or not all(map(str.strip, classes)):
            raise ValueError("its classes are not names that differ")
        if not 0 < about["temperature"] < math.inf:
            raise ValueError(f"its temperature is {about['temperature']}")
        if type(about["multiclass"]) is not bool:
            raise ValueError("multiclass is neither true nor false")
        if any(np.shape(np.array(e, float)) != (3,) for e in about["measured"].values()):
            raise ValueError("what was measured is not value, low, high")
        width = width or tensors["weight"].shape[0]
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != {"weight": (width, len(classes)), "bias": (len(classes),)}:
            raise ValueError(f"{shapes} does not fit {len(classes)} classes of {width} channels")
        arrays = {name: tensor.numpy() for name, tensor in read_finite(path).items()}
        return CalibratedProbe(**about | arrays | {"classes": tuple(classes)})
    except MALFORMED as e:
        raise PacxError(
            f"{path} is not a probe that pacx exported ({e}). Export the encoder again."
        ) from e


def train_calibrated_probe(run: Run, dataset: Dataset, model: str) -> CalibratedProbe:
    """The converged probe on the CLS token and all training labels, with its calibration.

    The features' standardisation is part of its weight and bias.
    """
    table = calibration(run, dataset, model)
    macro = table[table["task"] == "macro"].set_index("metric")
    return replace(
        _plain_probe(run, dataset, model),
        temperature=float(table["temperature"].iloc[0]),
        measured={m: macro.loc[m, ["value", "low", "high"]].tolist() for m in macro.index},
    )


def calibration(run: Run, dataset: Dataset, model: str) -> pd.DataFrame:
    """Brier score of the converged probe on the CLS token, before and after the temperature.

    Before: as trained. After: at the temperature that is best on the validation split, whose labels
    have also chosen the strength of the probe's penalty. Both are measured on the test split. The
    score is the mean squared distance between a probability and its label, 1 or 0.

    Returns:
        One row a label and metric (`Brier`, and `Brier, calibrated`), and the mean over labels as
        the task `macro`: dataset, task, model, metric, temperature, value, low, high (95 %, over
        patients).
    """
    probe = _plain_probe(run, dataset, model)
    val, test = (features_of(run, dataset, model, split, "cls") for split in ("val", "test"))
    temperature = fit_temperature(probe.logits(val), labels_of(dataset, "val"), probe.multiclass)
    truth = labels_of(dataset, "test")
    labelled = ~np.isnan(truth)
    labels = np.flatnonzero(labelled.any(axis=0))
    patients = dataset.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    rows = []
    calibrated = replace(probe, temperature=temperature)
    for metric, measured in {"Brier": probe, "Brier, calibrated": calibrated}.items():
        away = measured.probabilities(test) - truth
        squares = np.where(labelled, away**2, 0.0)[:, labels]
        points = squares.sum(axis=0) / labelled[:, labels].sum(axis=0)  # (C,)
        counted = weights @ labelled[:, labels]  # 0 where a resample has left all of them out
        resampled = (weights @ squares) / np.where(counted > 0, counted, np.nan)  # (R, C)
        estimates = {dataset.labels[c]: (points[i], resampled[:, i]) for i, c in enumerate(labels)}
        estimates["macro"] = (points.mean(), resampled.mean(axis=1))
        rows += [
            {
                "dataset": dataset.name, "task": task, "model": model, "metric": metric,
                "temperature": temperature, **interval(*estimate)._asdict(),
            }
            for task, estimate in estimates.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def fit_temperature(logits: np.ndarray, truth: np.ndarray, multiclass: bool) -> float:
    """The temperature with the lowest negative log-likelihood (Guo et al. 2017).

    Args:
        logits: (N, C), of a split that no weight was fitted on.
        truth: (N, C), 1, 0 or NaN = unknown.
        multiclass: Whether exactly one of the C labels is 1.

    Returns:
        Between 0.05 and 20. 1 where only one class is known: nothing can be chosen by it.
    """
    labelled = ~np.isnan(truth)
    if len(np.unique(truth[labelled])) < 2:
        return 1.0

    def loss(log_temperature: float) -> float:
        z = logits / np.exp(log_temperature)
        if multiclass:
            return -(truth * log_softmax(z, axis=1)).sum()
        return -np.where(truth == 1, log_expit(z), log_expit(-z))[labelled].sum()

    limits = np.log([0.05, 20])
    return float(np.exp(minimize_scalar(loss, bounds=limits, method="bounded").x))


def _plain_probe(run: Run, dataset: Dataset, model: str) -> CalibratedProbe:
    """The converged probe as trained: at temperature 1, and not yet measured."""
    probes = train_probes(run, dataset, model)
    weight, bias = probes.weight[0].numpy(), probes.bias[0, 0].numpy()
    return CalibratedProbe(dataset.name, dataset.labels, probes.multiclass, weight, bias, 1.0, {})
