"""Zero-shot alignment: can a linear map from X-ray features find the teacher's embedding?"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from pacx.data.datasets import load_pairs
from pacx.evaluation.features import extract_features
from pacx.evaluation.statistics import bootstrap_weights, mean_on_resamples, paired_table
from pacx.run import Run
from pacx.training.distill import teacher_embeddings

#: Cut-offs of the recall, and shuffles of the permutation test.
RECALL_AT, PERMUTATIONS = (1, 5, 10), 999


class Alignment(NamedTuple):
    """Scores on the test pairs.

    Attributes:
        r2: Coefficient of determination, mean over the target's channels.
        cosine_raw: Mean cosine between prediction and target.
        cosine_centred: The same after subtracting the test targets' mean from both (the paper's).
        random_raw: Mean cosine between a test target and another, random one: the height that
            `cosine_raw` owes to the targets' common mean.
        random_centred: The same after subtracting the mean; about 0.
        recall: {k: share of test rows whose own target is among the k nearest}, by raw cosine.
        cosines: (N,) centred cosine of each pair; `cosine_centred` is their mean.
        ranks: (N,) place of the own target, 1 = nearest; behind those that are equally near.
        prediction: (N, D_target) predicted targets.
    """

    r2: float
    cosine_raw: float
    cosine_centred: float
    random_raw: float
    random_centred: float
    recall: dict[int, float]
    cosines: NDArray[np.floating]
    ranks: NDArray[np.int64]
    prediction: NDArray[np.floating]


def ridge_alignment(
    train_features: NDArray,
    train_targets: NDArray,
    test_features: NDArray,
    test_targets: NDArray,
    alpha: float = 10,
) -> Alignment:
    """Standardise, fit a ridge regression on the train pairs, score it on the test pairs.

    The paper fits on Symile-MIMIC's 10,000 train pairs and retrieves among 464 test pairs. There
    the mean that centres the cosine is that of the *test* targets, while retrieval ranks by the
    uncentred cosine.

    Args:
        train_features: (M, D) frozen CXR features.
        train_targets: (M, D_target) teacher embeddings.
        test_features: (N, D).
        test_targets: (N, D_target); row i belongs to row i of the features.
        alpha: Ridge penalty.
    """
    scaler = StandardScaler().fit(train_features)
    ridge = Ridge(alpha=alpha, solver="svd").fit(scaler.transform(train_features), train_targets)
    prediction = ridge.predict(scaler.transform(test_features))

    mean = test_targets.mean(axis=0)
    shuffled = test_targets[np.random.default_rng(0).permutation(len(test_targets))]
    cosines = (_unit(prediction - mean) * _unit(test_targets - mean)).sum(axis=1)
    similarity = _unit(prediction) @ _unit(test_targets).T
    ranks = (similarity >= np.diag(similarity)[:, None]).sum(axis=1)
    return Alignment(
        r2=float(r2_score(test_targets, prediction)),
        cosine_raw=_mean_cosine(prediction, test_targets),
        cosine_centred=float(cosines.mean()),
        random_raw=_mean_cosine(shuffled, test_targets),
        random_centred=_mean_cosine(shuffled - mean, test_targets - mean),
        recall={k: float((ranks <= k).mean()) for k in RECALL_AT},
        cosines=cosines,
        ranks=ranks,
        prediction=prediction,
    )


def compare_alignment(
    run: Run,
    models: Sequence[str],
    target: str,
    *,
    pooling: Literal["cls", "mean"] = "cls",
) -> pd.DataFrame:
    """Align several encoders with a trained teacher, `ecg` or `labs`, on the same test pairs.

    The ridge regression reads the pooling `cls`, as in the paper, or `mean` of the patches.

    Returns:
        One row a metric (`cosine`, `R@1`, `R@5`, `R@10`) and model: dataset, target, pooling,
        metric, model, value, low, high, `chance` (cosine: of randomly chosen pairs), `hits` and
        `pairs` (R@k), `p` (cosine: permutation test against shuffled pairs) and the paired
        differences of the cosine from the MAE. Intervals of the cosine are bootstraps over
        patients, of R@k Wilson's.
    """
    pairs, targets = {}, {}
    for split in ("train", "test"):
        pairs[split] = load_pairs(run, split)
        targets[split] = teacher_embeddings(run, pairs[split])[target]
    patients = pairs["test"].table["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    aligned, rows = {}, []
    for model in dict.fromkeys([*models, "mae"]):
        features = {s: getattr(extract_features(run, model, pairs[s].cxr), pooling) for s in pairs}
        aligned[model] = ridge_alignment(
            features["train"], targets["train"], features["test"], targets["test"]
        )

    def measure(model: str) -> tuple[float, np.ndarray]:
        return mean_on_resamples(aligned[model].cosines, weights)

    facts = {"dataset": run.profile.pairs, "target": target, "pooling": pooling}
    cosine = paired_table(models, "mae", measure, **facts, metric="cosine")
    chance, p = zip(
        *(permutation_test(aligned[m].prediction, targets["test"]) for m in models), strict=True
    )
    cosine = cosine.assign(chance=chance, p=p, pairs=len(patients))
    for model in models:
        for k in RECALL_AT:
            hits = int((aligned[model].ranks <= k).sum())
            wilson = binomtest(hits, len(patients)).proportion_ci(method="wilson")
            rows.append(
                {
                    **facts, "metric": f"R@{k}", "model": model, "value": hits / len(patients),
                    "low": wilson.low, "high": wilson.high, "chance": min(1.0, k / len(patients)),
                    "hits": hits, "pairs": len(patients),
                }
            )  # fmt: skip
    return pd.concat([cosine, pd.DataFrame(rows)], ignore_index=True)


def permutation_test(prediction: NDArray, targets: NDArray) -> tuple[float, float]:
    """Could shuffled pairs of prediction and target, (N, D) each, reach the true centred cosine?

    Returns:
        Mean cosine of `PERMUTATIONS` shuffles (the noise floor), and the one-sided p-value.
    """
    mean = targets.mean(axis=0)
    cosine = _unit(prediction - mean) @ _unit(targets - mean).T
    rows, rng = np.arange(len(targets)), np.random.default_rng(0)
    shuffled = np.array([cosine[rows, rng.permutation(rows)].mean() for _ in range(PERMUTATIONS)])
    reached = int((shuffled >= np.trace(cosine) / len(rows)).sum())
    return float(shuffled.mean()), (1 + reached) / (1 + PERMUTATIONS)


def _mean_cosine(a: NDArray, b: NDArray) -> float:
    return float((_unit(a) * _unit(b)).sum(axis=1).mean())


def _unit(rows: NDArray) -> NDArray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
