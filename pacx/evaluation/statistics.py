"""Intervals over patients, and words for what they show."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd


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
    positives, negatives = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    # Weight of the negatives below each place in their own order, 0 first.
    below = np.zeros((len(weights), len(negatives) + 1), weights.dtype)
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    # A positive beats the negatives below it, and half of those that tie with it.
    first = np.searchsorted(scores[negatives], scores[positives], side="left")
    last = np.searchsorted(scores[negatives], scores[positives], side="right")
    drawn = weights[:, positives]
    won = np.einsum("rp,rp->r", drawn, (below[:, first] + below[:, last]) / 2)
    pairs = drawn.sum(1) * below[:, -1]
    return won / np.where(pairs > 0, pairs, np.nan)


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
    values = np.array(values)
    measured = ~np.isnan(values)
    tasks = measured.sum(axis=0)
    return np.where(measured, values, 0).sum(axis=0) / np.where(tasks > 0, tasks, np.nan)


def macro_f1(truth: np.ndarray, decisions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean F1 over tasks, for each weighting; as `sklearn.metrics.f1_score` with `zero_division=0`.

    Args:
        truth: (N, C), 1, 0 or NaN = unknown.
        decisions: (N, C) bool.
        weights: (R, N).

    Returns:
        (R,).
    """
    known = ~np.isnan(truth)
    hits = weights @ ((truth == 1) & decisions).astype(weights.dtype)
    misses = weights @ ((truth == 1) & ~decisions).astype(weights.dtype)
    false_alarms = weights @ (known & (truth == 0) & decisions).astype(weights.dtype)
    return (2 * hits / np.maximum(2 * hits + misses + false_alarms, 1)).mean(axis=1)


def mean_over_cases(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Mean of one number a case, such as a paired difference, with its bootstrap interval.

    Args:
        values: (N,); NaN = the case does not count.
        weights: (R, N).
    """
    known = ~np.isnan(values)
    drawn = weights[:, known]
    return interval(values[known].mean(), drawn @ values[known] / drawn.sum(1))


def interval(point: float, resampled: np.ndarray) -> Estimate:
    """Percentile interval of a bootstrap."""
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(float(point), float(low), float(high))


def paired_table(
    models: Sequence[str],
    reference: str,
    measure: Callable[[str], tuple[float, np.ndarray]],
    **facts: object,
) -> pd.DataFrame:
    """Score several models on the same resamples, each also as a difference from one of them.

    Args:
        models: Rows of the table.
        reference: The model that the others are compared with; need not be among `models`.
        measure: Model -> its score and the score on each of the same R resamples.
        **facts: Columns that are equal in all rows, such as `dataset`.

    Returns:
        One row a model: the facts, model, value, low, high, reference, difference_value,
        difference_low, difference_high (empty for the reference itself).
    """
    measured = cache(measure)
    rows = []
    for model in models:
        (point, spread), (base, base_spread) = measured(model), measured(reference)
        difference = interval(point - base, spread - base_spread)
        if model == reference:
            difference = Estimate(np.nan, np.nan, np.nan)
        rows.append(
            {
                **facts,
                "model": model,
                **interval(point, spread)._asdict(),
                "reference": reference,
                **{f"difference_{k}": v for k, v in difference._asdict().items()},
            }
        )
    return pd.DataFrame(rows)


def difference_of(row: pd.Series) -> Estimate:
    """The difference in a row of `paired_table`."""
    return Estimate(row["difference_value"], row["difference_low"], row["difference_high"])


def verdict(difference: Estimate) -> str:
    """What a 95 % interval of a difference lets one say."""
    if difference.low > 0:
        return "above zero"
    return "below zero" if difference.high < 0 else "not distinguishable from zero"
