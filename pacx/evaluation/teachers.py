"""What embeddings say of a phantom's true states: the teachers', and the X-ray encoders'."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pacx.data.datasets.symile_mimic import Pairs, load_pairs
from pacx.data.table import Dataset
from pacx.evaluation.baselines import POOLINGS, features_of, readings_of
from pacx.evaluation.statistics import bootstrap_weights, interval, macro_auroc, paired_table
from pacx.phantom.state import residual_states
from pacx.run import Run
from pacx.training.distill import teacher_embeddings
from pacx.training.probe import fit_probes


def compare_teachers(run: Run) -> pd.DataFrame:
    """R2 of a ridge regression from each teacher's embedding to each true state.

    Fitted on the training pairs, scored on the test pairs. The untrained teachers are those of
    the variant `pacx-untrained`.

    Args:
        run: A phantom run that holds the artefacts `ecg` and `labs`.

    Returns:
        One row a modality (`target`), `state` (`mean`: mean over all states) and `model` (`teacher`
        or `teacher-untrained`): metric (`R2`), then the columns of
        `pacx.evaluation.statistics.paired_table` with the untrained teacher as reference.
    """
    size = run.profile.vit.image_size
    pairs = {s: load_pairs(run.data_root, s, size, run.cache) for s in ("train", "test")}
    states = {split: true_states(run, split, part) for split, part in pairs.items()}
    weights = bootstrap_weights(
        pairs["test"].table["patient"].to_numpy(), run.profile.bootstrap, run.profile.seed
    )
    once = np.ones((1, weights.shape[1]), np.float32)
    tables = []
    for target in ("ecg", "labs"):
        scores = {}
        for model, trained in {"teacher": True, "teacher-untrained": False}.items():
            known = {
                split: getattr(teacher_embeddings(run, part, trained=trained), target)
                for split, part in pairs.items()
            }
            ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 9)))
            predicted = ridge.fit(known["train"], states["train"]).predict(known["test"])
            null = states["train"].mean().to_numpy()
            scores[model] = [
                explained(states["test"].to_numpy(), predicted, null, w) for w in (once, weights)
            ]
        for k, state in enumerate(states["test"]):
            facts = {"target": target, "state": state, "metric": "R2"}
            tables.append(_table({m: (p[0, k], r[:, k]) for m, (p, r) in scores.items()}, **facts))
        facts = {"target": target, "state": "mean", "metric": "R2"}
        tables.append(_table({m: (p.mean(), r.mean(1)) for m, (p, r) in scores.items()}, **facts))
    return pd.concat(tables, ignore_index=True)


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
    size = run.profile.vit.image_size
    embeddings, labels, tables = {}, {}, {}
    for split in ("train", "test"):
        pairs = load_pairs(run.data_root, split, size, run.cache)
        ecg, labs = teacher_embeddings(run, pairs)
        embeddings[split] = {"ECG": ecg, "labs": labs, "both": np.concatenate([ecg, labs], 1)}
        labels[split], tables[split] = _truth(run, split, pairs), pairs.table
    weights = bootstrap_weights(
        tables["test"]["patient"].to_numpy(), run.profile.bootstrap, run.profile.seed
    )
    once = np.ones((1, weights.shape[1]), np.float32)
    every = [task for tasks in groups.values() for task in tasks]
    rows = []
    for pooling, train in embeddings["train"].items():
        probes = fit_probes((train, labels["train"][every].to_numpy(np.float32)))
        found = pd.DataFrame(probes.probabilities(embeddings["test"][pooling])[0], columns=every)
        for group, tasks in groups.items():
            truth, scores = (t[list(tasks)].to_numpy(np.float32) for t in (labels["test"], found))
            value = macro_auroc(truth, scores, once)[0]
            estimate = interval(value, macro_auroc(truth, scores, weights))
            rows.append(
                {
                    "dataset": "symile-mimic", "task": "macro", "probe": "converged",
                    "pooling": pooling, "fraction": 1.0, "metric": "AUROC", "model": "teachers",
                    **estimate._asdict(), "group": group,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def residual_scores(
    run: Run, dataset: Dataset, models: Sequence[str], *, reference: str = "mae"
) -> pd.DataFrame:
    """R2 of a ridge regression from frozen features to what is left of each true state.

    A task can be read through its neighbours: a large heart tells of hypertension. The residual
    state is what the other states do not predict, so a score above zero is knowledge of this state
    itself. Potassium and conduction leave no trace on a phantom's X-ray: they must score nothing.

    Args:
        run: A phantom run.
        dataset: `phantom-truth`.
        models: Encoders or baselines.
        reference: The model that the others are compared with.

    Returns:
        One row a state, pooling and model: metric (`R2`), then the columns of
        `pacx.evaluation.statistics.paired_table`.
    """
    residuals = {}
    for split in ("train", "test"):
        states = dataset.split(split).filter(like="state_")
        states = states.rename(columns=lambda name: name.removeprefix("state_"))
        residuals[split] = residual_states(states)
    patients = dataset.split("test")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    once = np.ones((1, len(patients)), np.float32)
    null, truth = residuals["train"].mean().to_numpy(), residuals["test"].to_numpy()
    tables = []
    for pooling in POOLINGS:
        scores = {}
        for model in dict.fromkeys([*models, reference]):
            reading = pooling if readings_of(model) == POOLINGS else readings_of(model)[-1]
            train, test = (
                features_of(run, dataset, model, split, reading) for split in ("train", "test")
            )
            ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
            predicted = ridge.fit(train, residuals["train"].to_numpy()).predict(test)
            scores[model] = [explained(truth, predicted, null, w) for w in (once, weights)]
        for k, state in enumerate(residuals["test"]):
            told = {m: (point[0, k], spread[:, k]) for m, (point, spread) in scores.items()}
            tables.append(
                paired_table(
                    models, reference, told.__getitem__, state=state, pooling=pooling, metric="R2"
                )
            )
    return pd.concat(tables, ignore_index=True)


def true_states(run: Run, split: str, pairs: Pairs) -> pd.DataFrame:
    """(N, states) true states of the patients of one split of Symile-MIMIC, phantoms only."""
    states = _truth(run, split, pairs).filter(like="state_")
    return states.rename(columns=lambda name: name.removeprefix("state_"))


def explained(
    truth: np.ndarray, predicted: np.ndarray, null: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Share of each column's variance that a prediction explains, for each weighting of the cases.

    Args:
        truth: (N, S).
        predicted: (N, S).
        null: (S,) prediction of one who knows nothing: the training cases' mean.
        weights: (R, N).

    Returns:
        (R, S); 1 is perfect, 0 no better than `null`.
    """
    return 1 - (weights @ (truth - predicted) ** 2) / (weights @ (truth - null) ** 2)


def _truth(run: Run, split: str, pairs: Pairs) -> pd.DataFrame:
    path = run.data_root / "symile-mimic" / "data_npy" / split / "truth.csv"
    truth = pd.read_csv(path).drop_duplicates("hadm_id").set_index("hadm_id")
    return truth.loc[pairs.table["study"].astype(int)]


def _table(scores: dict[str, tuple[float, np.ndarray]], **facts: str) -> pd.DataFrame:
    return paired_table(list(scores), "teacher-untrained", scores.__getitem__, **facts)
