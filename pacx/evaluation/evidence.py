"""The committed evidence: repetitions on fresh cohorts, read and pooled."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

import pacx
from pacx.errors import PacxError
from pacx.evaluation.claims import ALPHA, PRIMARY
from pacx.evaluation.statistics import holm

#: Where a checkout of the book keeps it; an installed package has none.
FOLDER = Path(pacx.__file__).parents[1] / "book" / "evidence"

#: What may name a row; `model` and `reference` are the encoders.
KEYS = (
    "dataset", "target", "group", "task", "outcome", "region", "method", "what", "teachers",
    "state", "patients", "hospital", "metric", "fraction", "features", "probe", "epochs", "pooling",
    "model", "reference", "claim",
)  # fmt: skip

#: What stands where the evidence would.
NOT_GATHERED = "The repetitions on fresh cohorts have not been gathered yet."
#: The claim that `pooled_claims` makes of the first two.
MORE_WITH_FEW = "The gain on physiology is larger with few labels than with all"


def load_evidence(name: str, folder: Path = FOLDER) -> pd.DataFrame | None:
    """One table of all repetitions, with `cohort`; None where there is no evidence.

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
    """Profile, cohorts, versions, and seconds of each repetition."""
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def pooled_claims(folder: Path = FOLDER) -> pd.DataFrame:
    """The claims judged on all repetitions: t-tests on the cohorts' estimates against the margin.

    A cohort's estimate reads each encoder as its own validation labels say. A claim of a gain is
    tested on one side, a claim of equivalence by two one-sided tests, and the p-values of the
    primary claims are corrected by Holm's method. The last row, secondary, is the difference of the
    first two claims: whether few labels gain more.

    Returns:
        `claim`, `estimate`, `low`, `high` (95 %), `runs`, `holds_in` (repetitions where it
        does), `primary`, `kind`, `margin`, `p`, `p_holm` and `holds`.
    """
    claims = load_evidence("claims", folder)
    order = list(dict.fromkeys(claims["claim"]))
    estimates = claims.pivot(index="cohort", columns="claim", values="estimate")[order]
    facts = claims.groupby("claim")[["primary", "kind", "margin"]].first().T.to_dict()
    holds_in = claims.groupby("claim")["holds"].sum().to_dict()
    every, few = (claim.text for claim in PRIMARY[:2])
    if {every, few} <= set(order):
        estimates[MORE_WITH_FEW] = estimates[few] - estimates[every]
        facts[MORE_WITH_FEW] = {"primary": False, "kind": "above", "margin": 0.0}
    rows = []
    for claim, values in estimates.items():
        about, values = facts[claim], values.dropna()
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        sides = [(values - about["margin"], "greater")]
        if about["kind"] == "within":
            sides = [(values + about["margin"], "greater"), (values - about["margin"], "less")]
        p = max(stats.ttest_1samp(shifted, 0, alternative=side).pvalue for shifted, side in sides)
        rows.append(
            {
                "claim": claim, "estimate": values.mean(), "low": low, "high": high,
                "runs": len(values), "holds_in": holds_in.get(claim), **about, "p": p,
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    first = table["primary"].astype(bool)
    table.loc[first, "p_holm"] = holm(table.loc[first, "p"].to_numpy())
    table["holds"] = table["p_holm"].fillna(table["p"]) < ALPHA
    return table


def pool(table: pd.DataFrame, value: str = "difference_value") -> pd.DataFrame:
    """Mean over all repetitions, with Student's interval for a fresh cohort and training.

    Patients and training seed vary together, so the spread of the cohorts holds both. The table is
    one of `load_evidence`.

    Returns:
        One row for each combination of the `KEYS` that are there: `value`, `low`, `high`, `runs`
        and, for paired differences, `above` and `below`: runs whose own interval excludes zero.
    """
    keys = [key for key in KEYS if key in table]
    table = table.dropna(subset=[value])
    rows = []
    for names, runs in table.groupby(keys, sort=False, dropna=False):
        values = runs[value]
        half = (
            stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
        )
        row = dict(zip(keys, names, strict=True))
        row |= {"value": values.mean(), "low": values.mean() - half, "high": values.mean() + half}
        row["runs"] = len(runs)
        if value == "difference_value":
            row["above"] = int((runs["difference_low"] > 0).sum())
            row["below"] = int((runs["difference_high"] < 0).sum())
        rows.append(row)
    return pd.DataFrame(rows)
