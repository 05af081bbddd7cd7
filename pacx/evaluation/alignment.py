"""Alignment without labels: can a ridge regression on pairs find the teacher's embedding?"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from pacx.data.datasets import load_pairs
from pacx.evaluation.features import extract_features
from pacx.evaluation.statistics import bootstrap_weights, mean_on_resamples, paired_table
from pacx.run import Run
from pacx.training.distill import teacher_embeddings

#: Cut-offs of the recall.
RECALL_AT = (1, 5, 10)


class Alignment(NamedTuple):
    """Scores on the test pairs, all but the last two fields as the paper's public code has them.

    Attributes:
        r2: Coefficient of determination, mean over the target's channels.
        cosine_raw: Mean cosine between prediction and target.
        cosine_centred: The same after subtracting the test targets' mean from both (the paper's).
        random_raw: Mean cosine between a test target and another, random one: the height that
            `cosine_raw` owes to the targets' common mean.
        random_centred: The same after subtracting the mean; about 0.
        recall: {k: share of test rows whose own target is among the k nearest}, by raw cosine.
        ranks: (N,) place of the own target by raw cosine, 1 = nearest; behind its equals.
        prediction: (N, D_target) predicted targets.
        similarity: (N, N) cosine of prediction i and target j, both after subtracting the mean of
            the *training* targets, which needs no other test patient.
    """

    r2: float
    cosine_raw: float
    cosine_centred: float
    random_raw: float
    random_centred: float
    recall: dict[int, float]
    ranks: NDArray[np.int64]
    prediction: NDArray[np.floating]
    similarity: NDArray[np.floating]


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
    ranks = own_ranks(_unit(prediction) @ _unit(test_targets).T)
    known = train_targets.mean(axis=0)
    return Alignment(
        r2=float(r2_score(test_targets, prediction)),
        cosine_raw=_mean_cosine(prediction, test_targets),
        cosine_centred=_mean_cosine(prediction - mean, test_targets - mean),
        random_raw=_mean_cosine(shuffled, test_targets),
        random_centred=_mean_cosine(shuffled - mean, test_targets - mean),
        recall={k: float((ranks <= k).mean()) for k in RECALL_AT},
        ranks=ranks,
        prediction=prediction,
        similarity=_unit(prediction - known) @ _unit(test_targets - known).T,
    )


def own_ranks(similarity: NDArray) -> NDArray:
    """Place (N,) of target i among all targets of row i (N, N), 1 = nearest, behind its equals."""
    return (similarity >= np.diag(similarity)[:, None]).sum(axis=1)


def compare_alignment(
    run: Run,
    models: Sequence[str],
    target: str,
    *,
    pooling: Literal["cls", "mean"] = "cls",
) -> pd.DataFrame:
    """Align several encoders with a trained teacher, `ecg` or `labs`, on the same test pairs.

    The ridge regression reads the pooling `cls`, as in the paper, or `mean` of the patches.

    Cosines are centred on the mean of the training targets, and retrieval ranks by them.

    Returns:
        One row a metric (`cosine`, `R@1`, `R@5`, `R@10`) and model: as `paired_table` has it, with
        differences from the MAE, and dataset, target, pooling, `pairs`, `chance`, `p` (cosine: of
        the permutation test) and `hits` (R@k). Intervals are bootstraps over patients, but that of
        R@k itself is Wilson's and the p-value of its difference McNemar's exact one.
    """
    pairs, targets = {}, {}
    for split in ("train", "test"):
        pairs[split] = load_pairs(run, split)
        targets[split] = teacher_embeddings(run, pairs[split])[target]
    patients = pairs["test"].table["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    similarity, ranks = {}, {}
    for model in dict.fromkeys([*models, "mae"]):
        features = {s: getattr(extract_features(run, model, pairs[s].cxr), pooling) for s in pairs}
        similarity[model] = ridge_alignment(
            features["train"], targets["train"], features["test"], targets["test"]
        ).similarity
        ranks[model] = own_ranks(similarity[model])

    facts = {"dataset": run.profile.pairs, "target": target, "pooling": pooling}
    facts["pairs"] = len(patients)
    table = paired_table(
        models, "mae", lambda m: mean_on_resamples(np.diag(similarity[m]), weights),
        **facts, metric="cosine",
    )  # fmt: skip
    chance, p = zip(*(permutation_test(similarity[m]) for m in models), strict=True)
    tables = [table.assign(chance=chance, p=p)]
    for k in RECALL_AT:
        found = {m: own <= k for m, own in ranks.items()}
        table = paired_table(
            models, "mae", lambda m, found=found: mean_on_resamples(found[m], weights),
            **facts, metric=f"R@{k}",
        )  # fmt: skip
        table["hits"] = [int(found[m].sum()) for m in models]
        wilson = [binomtest(h, len(patients)).proportion_ci(method="wilson") for h in table["hits"]]
        table["low"], table["high"] = zip(*wilson, strict=True)
        table["difference_p"] = [
            np.nan if m == "mae" else mcnemar(found[m], found["mae"]) for m in models
        ]
        tables.append(table.assign(chance=min(1.0, k / len(patients))))
    return pd.concat(tables, ignore_index=True)


def permutation_test(similarity: NDArray) -> tuple[float, float]:
    """Could shuffled pairs reach the mean cosine of the true ones?

    The normal limit of the mean over all shuffles (Hoeffding, 1951, doi:10.1214/aoms/1177729545):
    a number of random shuffles would bound the p-value from below.

    Args:
        similarity: (N, N), of prediction i and target j.

    Returns:
        The mean over all shuffles, and the one-sided p-value.
    """
    n, chance = len(similarity), similarity.mean()
    rest = similarity - similarity.mean(axis=0) - similarity.mean(axis=1, keepdims=True) + chance
    spread = np.sqrt((rest**2).sum() / (n - 1)) / n
    return float(chance), float(norm.sf((np.trace(similarity) / n - chance) / spread))


def mcnemar(ours: NDArray, theirs: NDArray) -> float:
    """McNemar's exact p-value of two (N,) bool on the same patients; 1 where they agree on all."""
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _mean_cosine(a: NDArray, b: NDArray) -> float:
    return float((_unit(a) * _unit(b)).sum(axis=1).mean())


def _unit(rows: NDArray) -> NDArray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
