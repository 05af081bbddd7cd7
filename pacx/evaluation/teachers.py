"""What embeddings say of a phantom's true states: the teachers', and the X-ray encoders'."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pacx.data.datasets import load_pairs
from pacx.data.datasets.symile_mimic import Pairs
from pacx.data.table import Dataset
from pacx.evaluation.baselines import POOLINGS, features_of, readings_of
from pacx.evaluation.statistics import (
    bootstrap_weights,
    interval,
    macro_auroc,
    on_resamples,
    paired_table,
)
from pacx.phantom.state import residual_states
from pacx.run import Run
from pacx.training.distill import teacher_embeddings
from pacx.training.probe import fit_probes
from pacx.training.targets import states_in, truth_of


def compare_teachers(run: Run) -> pd.DataFrame:
    """R2 of a ridge regression from each teacher's embedding to each true state.

    Fitted on the training pairs, scored on the test pairs. The untrained teachers are those of
    the variant `pacx-untrained`. The run, on phantoms, holds the artefacts `ecg` and `labs`.

    Returns:
        One row a modality (`target`), `state` (`mean`: mean over all states) and `model` (`teacher`
        or `teacher-untrained`): metric (`R2`), then the columns of
        `pacx.evaluation.statistics.paired_table` with the untrained teacher as reference.
    """
    pairs = {s: load_pairs(run, s) for s in ("train", "test")}
    states = {split: true_states(run, split, of_split) for split, of_split in pairs.items()}
    weights = bootstrap_weights(
        pairs["test"].table["patient"].to_numpy(), run.profile.bootstrap, run.profile.seed
    )
    tables = []
    for target in ("ecg", "labs"):
        scores = {}
        for model, training in {"teacher": 1.0, "teacher-untrained": 0.0}.items():
            embeddings = {
                split: teacher_embeddings(run, of_split, training=training)[target]
                for split, of_split in pairs.items()
            }
            train, test = ((embeddings[split], states[split]) for split in pairs)
            scores[model] = ridge_r2(train, test, weights)
        by_state = {
            state: {m: (point[k], spread[:, k]) for m, (point, spread) in scores.items()}
            for k, state in enumerate(states["test"])
        }
        by_state["mean"] = {m: (p.mean(), spread.mean(1)) for m, (p, spread) in scores.items()}
        for state, of_state in by_state.items():
            facts = {"target": target, "state": state, "metric": "R2"}
            measure = of_state.__getitem__
            tables.append(paired_table(list(scores), "teacher-untrained", measure, **facts))
    return pd.concat(tables, ignore_index=True)


def ridge_r2(
    train: tuple[np.ndarray, pd.DataFrame],
    test: tuple[np.ndarray, pd.DataFrame],
    weights: np.ndarray,
    alphas: Sequence[float] = tuple(np.logspace(0, 4, 9)),
) -> tuple[np.ndarray, np.ndarray]:
    """R2 of a ridge regression from standardised features to each of several states.

    Args:
        train: Features (M, D) and states (M, S) to fit on.
        test: Features (N, D) and states (N, S) to score on.
        weights: (R, N) of the bootstrap over the test cases.
        alphas: Penalties, of which leave-one-out errors on the training cases choose.

    Returns:
        R2 (S,), and R2 (R, S) of the resamples; 0 is no better than the training cases' mean.
    """
    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas)).fit(train[0], train[1].to_numpy())
    null, truth = train[1].mean().to_numpy(), test[1].to_numpy()
    return on_resamples(partial(explained, truth, ridge.predict(test[0]), null), weights)


def teacher_scores(run: Run, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """What the teachers themselves know of the tasks: probes on their embeddings of the test pairs.

    Other patients than those of `phantom-truth`, of the same population and with labels of the same
    kind; so there is no paired difference from an encoder. A teacher reads ECG or labs at its time,
    the label is of the X-ray's.

    Args:
        run: A phantom run that holds the artefacts `ecg` and `labs`.
        groups: Name -> tasks, such as `{"physiology": PHYSIOLOGY_TASKS}`.

    Returns:
        One row a group and pooling (`ECG`, `labs`, `both`), with the columns of
        `pacx.evaluation.transfer.compare_probes`; differences are empty.
    """
    embeddings, labels, tables = {}, {}, {}
    for split in ("train", "test"):
        pairs = load_pairs(run, split)
        ecg, labs = teacher_embeddings(run, pairs).values()
        embeddings[split] = {"ECG": ecg, "labs": labs, "both": np.concatenate([ecg, labs], 1)}
        labels[split], tables[split] = truth_of(run, split, pairs), pairs.table
    weights = bootstrap_weights(
        tables["test"]["patient"].to_numpy(), run.profile.bootstrap, run.profile.seed
    )
    every = [task for tasks in groups.values() for task in tasks]
    rows = []
    for pooling, train in embeddings["train"].items():
        probes = fit_probes((train, labels["train"][every].to_numpy(np.float32)))
        scores = pd.DataFrame(probes.probabilities(embeddings["test"][pooling])[0], columns=every)
        for group, tasks in groups.items():
            judged = (t[list(tasks)].to_numpy(np.float32) for t in (labels["test"], scores))
            estimate = interval(*on_resamples(partial(macro_auroc, *judged), weights))
            rows.append(
                {
                    "dataset": "symile-mimic", "task": "macro", "probe": "converged",
                    "pooling": pooling, "fraction": 1.0, "metric": "AUROC", "model": "teachers",
                    **estimate._asdict(), "group": group,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def residual_scores(run: Run, dataset: Dataset, models: Sequence[str]) -> pd.DataFrame:
    """R2 of a ridge regression from frozen features to what is left of each true state.

    A task can be read through its neighbours: a large heart tells of hypertension. The residual
    state is what the other states do not predict, so a score above zero is knowledge of this state
    itself. Potassium and conduction leave no trace on a phantom's X-ray: they must score nothing.

    Returns:
        One row a state, pooling and model (encoder or baseline): metric (`R2`), then the
        columns of `pacx.evaluation.statistics.paired_table`.
    """
    residuals = {
        split: residual_states(states_in(dataset.split(split))) for split in ("train", "test")
    }
    patients = dataset.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    tables = []
    for pooling in POOLINGS:
        scores = {}
        for model in dict.fromkeys([*models, "mae"]):
            reading = pooling if readings_of(model) == POOLINGS else readings_of(model)[-1]
            train, test = (
                (features_of(run, dataset, model, split, reading), residual)
                for split, residual in residuals.items()
            )
            scores[model] = ridge_r2(train, test, weights, np.logspace(0, 5, 11))
        for k, state in enumerate(residuals["test"]):
            of_state = {m: (point[k], spread[:, k]) for m, (point, spread) in scores.items()}
            facts = {"state": state, "pooling": pooling, "metric": "R2"}
            tables.append(paired_table(models, "mae", of_state.__getitem__, **facts))
    return pd.concat(tables, ignore_index=True)


def true_states(run: Run, split: str, pairs: Pairs) -> pd.DataFrame:
    """(N, states) true states of the patients of one split of Symile-MIMIC, phantoms only."""
    return states_in(truth_of(run, split, pairs))


def explained(
    truth: np.ndarray, predicted: np.ndarray, null: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Share (R, S) of each column's variance that a prediction explains, for each weighting (R, N).

    Truth and prediction are (N, S). 1 is perfect, 0 no better than `null` (S,), the prediction of
    one who knows nothing: the training cases' mean.
    """
    return 1 - (weights @ (truth - predicted) ** 2) / (weights @ (truth - null) ** 2)
