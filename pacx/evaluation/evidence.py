"""The committed evidence: repetitions on fresh cohorts, read and pooled."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

import pacx
from pacx.constants import PHYSIOLOGY_TASKS
from pacx.errors import PacxError

#: Where a checkout of the book keeps it; an installed package has none.
FOLDER = Path(pacx.__file__).parents[1] / "book" / "evidence"

#: What may name a row; `model` and `reference` are the encoders.
KEYS = (
    "dataset", "target", "group", "task", "outcome", "region", "method", "what", "dose", "teachers",
    "state", "metric", "fraction", "features", "probe", "epochs", "pooling", "model", "reference",
    "claim",
)  # fmt: skip


def load_evidence(name: str, folder: Path = FOLDER) -> pd.DataFrame | None:
    """One table of all repetitions, with `cohort` and `seed`; None where there is no evidence.

    Raises:
        PacxError: The folder is there, but not this table.
    """
    if not folder.is_dir():
        return None
    source = folder / f"{name}.csv"
    if not source.is_file():
        names = sorted(path.stem for path in folder.glob("*.csv"))
        raise PacxError(f"There is no evidence '{name}' in {folder}. Choose one of {names}.")
    return pd.read_csv(source)


def provenance_of_evidence(folder: Path = FOLDER) -> dict:
    """Profile, seeds, versions and seconds of each repetition; `superseded` only where it is."""
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def superseded(folder: Path = FOLDER) -> str | None:
    """Why the evidence in a folder no longer bears a claim, in one line; None where it does.

    It is also None where there is no evidence. Whatever shows superseded evidence says this line.
    """
    if not (folder / "provenance.json").is_file():
        return None
    return provenance_of_evidence(folder).get("superseded")


def dose_responses() -> pd.DataFrame | None:
    """The gain on physiology against the coupling, and against the teachers' training, pooled.

    The repetitions themselves are the doses 1, untrained teachers the dose 0.

    Returns:
        `what` (coupling or teachers), `dose`, `fraction`, `pooling` and what `pool` returns; None
        where there is no evidence.
    """
    between, controls = load_evidence("dose"), load_evidence("controls")
    if between is None:
        return None
    controls = controls[controls["outcome"].str.startswith("physiology")].drop(columns="outcome")
    whole = controls[controls["model"] == "pacx"]
    untrained = controls[controls["model"] == "pacx-untrained"].assign(model="pacx")
    ends = [
        whole.assign(what="coupling", dose=1.0),
        whole.assign(what="teachers", dose=1.0),
        untrained.assign(what="teachers", dose=0.0),
    ]
    return pool(pd.concat([between, *ends])).sort_values(["what", "fraction", "pooling", "dose"])


def pooled_claims(folder: Path = FOLDER) -> pd.DataFrame:
    """The claims of chapter 09, pooled, and in how many repetitions each holds.

    A repetition reads each encoder as its own validation labels say, so the pooling that a claim
    was judged by is not one of its keys.

    Returns:
        `claim`, `estimate`, `low`, `high`, `runs`, `holds` and, where the evidence has them,
        `primary`, `kind` and `margin`. The last rows say how many physiology tasks have a pooled
        interval above zero, `estimate` of `runs`, by the converged probe on the CLS token.
    """
    claims = load_evidence("claims", folder)
    pooled = pool(claims[["claim", "estimate", "cohort", "seed"]], "estimate")
    pooled = pooled.rename(columns={"value": "estimate"})
    pooled["holds"] = pooled["claim"].map(claims.groupby("claim")["holds"].sum())
    for fact in ("primary", "kind", "margin"):
        if fact in claims:
            pooled[fact] = pooled["claim"].map(claims.groupby("claim")[fact].first())
    tasks = load_evidence("label_efficiency", folder)
    for column, wanted in {"probe": "converged", "pooling": "cls"}.items():
        tasks = tasks[tasks[column] == wanted] if column in tasks else tasks
    tasks = pool(tasks)
    tasks = tasks[tasks["task"].isin(PHYSIOLOGY_TASKS) & (tasks["model"] == "pacx")]
    counts = [
        {
            "claim": f"Physiology tasks above zero, {fraction:.0%} of labels",
            "estimate": (rows["low"] > 0).sum(),
            "runs": len(rows),
        }
        for fraction, rows in tasks.groupby("fraction")
    ]
    return pd.concat([pooled, pd.DataFrame(counts)], ignore_index=True)


def pool(table: pd.DataFrame, value: str = "difference_value") -> pd.DataFrame:
    """Mean over all repetitions, with an interval for a fresh cohort.

    Trainings on one cohort share its patients, so they are averaged first; the interval is
    Student's over the cohorts' means. With three of them it is wide on average, and far too narrow
    where three means happen to agree: look at `above` and `below` as well.

    Args:
        table: As `load_evidence` returns it.
        value: Column to pool.

    Returns:
        One row for each combination of the `KEYS` that are there: `value`, `low`, `high`, `runs`
        and, for paired differences, `above` and `below`: runs whose own interval excludes zero.
    """
    keys = [key for key in KEYS if key in table]
    table = table.dropna(subset=[value])
    rows = []
    for names, runs in table.groupby(keys, sort=False, dropna=False):
        means = runs.groupby("cohort")[value].mean()
        half = np.nan
        if len(means) > 1:
            half = stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)
        row = dict(zip(keys, names, strict=True))
        row |= {"value": means.mean(), "low": means.mean() - half, "high": means.mean() + half}
        row["runs"] = len(runs)
        if value == "difference_value":
            row["above"] = int((runs["difference_low"] > 0).sum())
            row["below"] = int((runs["difference_high"] < 0).sum())
        rows.append(row)
    return pd.DataFrame(rows)
