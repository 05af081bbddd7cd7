"""Intervals over patients, and words for what they show."""

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def fast_auroc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of one binary task under many case weightings at once.

    A bootstrap resample is a weighting: how often each case was drawn. Sorting once and summing
    weights gives the same value as `sklearn.metrics.roc_auc_score` on the repeated cases.

    Args:
        truth: (N,) 0/1.
        scores: (N,).
        weights: (R, N) non-negative.

    Returns:
        (R,) AUROC; NaN where a resample holds one class only.
    """
    order = np.argsort(scores, kind="stable")
    truth, scores, weights = truth[order], scores[order], weights[:, order]
    positive, negative = weights * (truth == 1), weights * (truth == 0)
    # Tied scores share one rank: a positive beats the negatives below, and half of its own tie.
    edges = np.flatnonzero(np.r_[True, np.diff(scores) != 0])
    positive = np.add.reduceat(positive, edges, axis=1)
    negative = np.add.reduceat(negative, edges, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(1) / np.where(pairs > 0, pairs, np.nan)


def bootstrap_weights(patients: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw patients, not images: all images of a patient come and go together.

    Args:
        patients: (N,) patient of each case.
        resamples: R.
        seed: Of the draws.

    Returns:
        (R, N) float32 number of times each case was drawn.
    """
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    n = index.max() + 1
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return draws[:, index].astype(np.float32)


def macro_auroc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean AUROC over tasks, for each weighting.

    A task in which a class is absent has no AUROC and is left out.

    Args:
        truth: (N, C), 1, 0 or NaN = unknown.
        scores: (N, C).
        weights: (R, N).

    Returns:
        (R,).
    """
    values = [
        fast_auroc(truth[known, c], scores[known, c], weights[:, known])
        for c, known in enumerate(~np.isnan(truth).T)
    ]
    return np.nanmean(values, axis=0)


def interval(point: float, resampled: np.ndarray) -> Estimate:
    """Percentile interval of a bootstrap."""
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(float(point), float(low), float(high))


def verdict(difference: Estimate) -> str:
    """What a 95 % interval of a difference lets one say."""
    if difference.low > 0:
        return "above zero"
    return "below zero" if difference.high < 0 else "not distinguishable from zero"
