"""Scores and their intervals over patients."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:  # a table breaks no line within the brackets
        return f"{self.value:+.3f} [{self.low:+.3f},\N{NO-BREAK SPACE}{self.high:+.3f}]"


def weighted_auroc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
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
    times = weights.T  # (N, R): a case's draws lie side by side, see bootstrap_weights
    # Weight of the negatives below each place in their own order, 0 first.
    below = np.zeros((len(negatives) + 1, times.shape[1]), weights.dtype)
    for place, case in enumerate(negatives):  # row by row: three times as fast as np.cumsum
        np.add(below[place], times[case], out=below[place + 1])
    # A positive beats the negatives below it, and half of those that tie with it.
    first = np.searchsorted(scores[negatives], scores[positives], side="left")
    last = np.searchsorted(scores[negatives], scores[positives], side="right")
    drawn = times[positives]
    won = np.einsum("pr,pr->r", drawn, (below[first] + below[last]) / 2)
    pairs = drawn.sum(0) * below[-1]
    return won / np.where(pairs > 0, pairs, np.nan)


def fast_average_precision(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision (AUPRC) of one binary task under many case weightings at once.

    The same as `sklearn.metrics.average_precision_score` with `sample_weight`, for each weighting:
    (R,), NaN where a resample holds no positive, or no case. Arguments as of `weighted_auroc`.
    """
    order = np.argsort(-scores, kind="stable")
    drawn, positive = weights.T[order], truth[order, None] == 1
    # Cases that tie are alarmed together: only the last of them is a threshold.
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))
    alarmed = np.cumsum(drawn, axis=0)[ends]
    found = np.cumsum(drawn * positive, axis=0)[ends]
    gained = np.diff(found, axis=0, prepend=0)
    total = gained.sum(axis=0)
    precision = found / np.where(alarmed > 0, alarmed, 1)
    return (gained * precision).sum(axis=0) / np.where(total > 0, total, np.nan)


def rank_correlation(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's correlation (R,) of truth (N,) and scores (N,), for each weighting (R, N).

    Ranks are those among all cases, whatever the weights. NaN where either is constant in a
    resample.
    """
    ranks = np.stack([rankdata(truth), rankdata(scores)]) - (len(truth) + 1) / 2
    share = weights.astype(np.float64) / weights.sum(1, keepdims=True)
    a, b = ranks[:, None] - (ranks @ share.T)[..., None]  # (R, N) around their means
    spread = np.sqrt((share * a**2).sum(1) * (share * b**2).sum(1))
    return (share * a * b).sum(1) / np.where(spread > 1e-9, spread, np.nan)


def bootstrap_weights(patients: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw patients, not images: all images of a patient come and go together.

    Args:
        patients: (N,) patient of each case.
        resamples: R.
        seed: Of the draws.

    Returns:
        (R, N) float32 number of times each case was drawn; in memory case after case, which is how
        the scores here read it.

    Example:
        >>> spread = macro_auroc(truth, scores, bootstrap_weights(patients, 1000, seed=0))
    """
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    n = index.max() + 1
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    drawn += n * np.arange(resamples)[:, None]  # one count for all resamples
    times = np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)
    return times.astype(np.float32).T[index].T


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
    return _macro(weighted_auroc, truth, scores, weights)


def macro_average_precision(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """As `macro_auroc`, of average precision (AUPRC); a task without a positive is left out."""
    return _macro(fast_average_precision, truth, scores, weights)


#: Scores by ranks, for any threshold.
BY_RANK = {"AUROC": macro_auroc, "AUPRC": macro_average_precision}


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


def f1_thresholds(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Thresholds (C,) of the scores at which each task's F1 is best, such as on a validation split.

    Arguments as of `macro_auroc`. Of equally good thresholds the highest; a score as high as it
    counts as a positive. 0.5 where there is no positive to choose by.
    """
    chosen = np.full(truth.shape[1], 0.5, scores.dtype)
    for c, known in enumerate(~np.isnan(truth).T):
        positive = truth[known, c] == 1
        if positive.any():
            order = np.argsort(-scores[known, c], kind="stable")
            ordered = scores[known, c][order]
            alarmed = np.arange(1, len(ordered) + 1)
            f1 = 2 * np.cumsum(positive[order]) / (alarmed + positive.sum())
            ends = np.flatnonzero(np.diff(ordered, append=np.nan))
            chosen[c] = ordered[ends[np.argmax(f1[ends])]]
    return chosen


def bootstrap_p(differences: np.ndarray) -> float:
    """Two-sided p of a difference from its bootstrap: how far zero is in the tail.

    With many resamples it is below 0.05 where the 95 % percentile interval leaves out zero; it is
    never below 2 / (R + 1). Differences (R,) that are NaN do not count; without any, p is NaN.
    """
    known = differences[~np.isnan(differences)]
    if not len(known):
        return np.nan
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(known) + 1)))


def superiority_p(differences: np.ndarray, margin: float = 0.0) -> float:
    """One-sided p, from its bootstrap (R,), of a difference that is at most `margin`."""
    known = differences[~np.isnan(differences)]
    return float(((known <= margin).sum() + 1) / (len(known) + 1))


def equivalence_p(differences: np.ndarray, margin: float) -> float:
    """Two one-sided tests: p of a difference that is not within `margin` of 0 (Schuirmann 1987)."""
    return max(superiority_p(differences, -margin), superiority_p(-differences, -margin))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of the p (K,) of a family of tests (Holm 1979).

    Rejecting those below 0.05 keeps the chance of any false alarm below 0.05.
    """
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def on_resamples(
    score: Callable[[np.ndarray], np.ndarray], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A score (...) on the cases as they are, and on each resample (R, ...).

    `score` turns the bootstrap's weights (R, N) into scores (R, ...).
    """
    once = np.ones((1, weights.shape[1]), weights.dtype)
    return score(once)[0], score(weights)


def mean_on_resamples(values: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of one number (N,) a case, and its means (R,) on the resamples with weights (R, N)."""
    return values.mean(), weights @ values / weights.sum(axis=1)


def mean_over_cases(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Mean of one number (N,) a case, NaN where it does not count, with its bootstrap interval."""
    known = ~np.isnan(values)
    return interval(*mean_on_resamples(values[known], weights[:, known]))


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
        difference_low, difference_high, difference_p (empty for the reference itself).

    Example:
        >>> table = paired_table(["mae", "pacx"], "mae", measure, dataset="tb")
    """
    measured = cache(measure)
    rows = []
    for model in models:
        (point, spread), (base, base_spread) = measured(model), measured(reference)
        change = spread - base_spread
        difference, p = interval(point - base, change), bootstrap_p(change)
        if model == reference:
            difference, p = Estimate(np.nan, np.nan, np.nan), np.nan
        rows.append(
            {
                **facts,
                "model": model,
                **interval(point, spread)._asdict(),
                "reference": reference,
                **{f"difference_{k}": v for k, v in difference._asdict().items()},
                "difference_p": p,
            }
        )
    return pd.DataFrame(rows)


def difference_of(row: pd.Series) -> Estimate:
    """The difference in a row of `paired_table`."""
    return Estimate(row["difference_value"], row["difference_low"], row["difference_high"])


def _macro(
    score: Callable[..., np.ndarray], truth: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    values = [
        score(truth[known, c], scores[known, c], weights.T[known].T)
        for c, known in enumerate(~np.isnan(truth).T)
    ]
    values = np.array(values)
    measured = ~np.isnan(values)
    tasks = measured.sum(axis=0)
    return np.where(measured, values, 0).sum(axis=0) / np.where(tasks > 0, tasks, np.nan)
