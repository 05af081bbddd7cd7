"""The claims about the method, as they were written down before the evidence was gathered.

A claim names a difference that matters and the control that could refute it. It holds where the
corrected p-value says so, not where a difference is merely above zero.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import pandas as pd

from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS
from pacx.data.table import Dataset
from pacx.evaluation.statistics import equivalence_p, holm, interval, superiority_p
from pacx.evaluation.transfer import best_reading, macro_score
from pacx.run import Run

ALPHA = 0.05
FEW = "few"  # the smallest share of labels in the profile
_COLUMNS = [
    "claim", "primary", "model", "reference", "pooling", "reference_pooling", "estimate", "low",
    "high", "kind", "margin", "p", "p_holm", "holds",
]  # fmt: skip


class Claim(NamedTuple):
    """A difference in AUROC between two encoders.

    Attributes:
        text: What is claimed.
        model: The encoder that the claim is about.
        reference: The one that it is held against.
        tasks: Averaged over.
        fraction: Share of the labels, or `few`.
        pooling: `best` reads each encoder as its validation labels say.
        kind: `above`: more than the margin. `within`: within the margin on both sides.
        margin: The smallest difference that matters.
        why: Reason of the margin.
    """

    text: str
    model: str
    reference: str
    tasks: Sequence[str]
    fraction: float | str
    pooling: str
    kind: Literal["above", "within"]
    margin: float
    why: str


_SMALLEST = "the smallest gain that the paper reports where scores are not near 1 is 1.1 points"

#: Corrected together by Holm's method.
PRIMARY = (
    Claim(
        "PaCX-MAE reads physiology better than the MAE, all labels",
        "pacx", "mae", PHYSIOLOGY_TASKS, 1.0, "best", "above", 0.01, _SMALLEST,
    ),
    Claim(
        "PaCX-MAE reads physiology better than the MAE, few labels",
        "pacx", "mae", PHYSIOLOGY_TASKS, FEW, "best", "above", 0.02,
        "with few labels the paper's smallest gain is 3.6 points; scores vary more, so about half",
    ),
    Claim(
        "The pairs earn it: better than with shuffled pairs, all labels",
        "pacx", "pacx-shuffled", PHYSIOLOGY_TASKS, 1.0, "best", "above", 0.01, _SMALLEST,
    ),
    Claim(
        "The teachers' training earns it: better than with untrained teachers, all labels",
        "pacx", "pacx-untrained", PHYSIOLOGY_TASKS, 1.0, "best", "above", 0.01, _SMALLEST,
    ),
    Claim(
        "Anatomy is kept: PaCX-MAE equals the MAE on the mean of patches, all labels",
        "pacx", "mae", ANATOMY_TASKS, 1.0, "mean", "within", 0.02,
        "half of what the phantoms' acceptance asks of the MAE over random weights, which fail it",
    ),
)  # fmt: skip

_TWICE = "twice the margin of a gain, since both sides are trainings of their own"

#: Reported with their p-values, not corrected.
SECONDARY = (
    Claim(
        "More of the MAE's own training changes nothing on physiology",
        "mae-continued", "mae", PHYSIOLOGY_TASKS, 1.0, "best", "within", 0.01, _SMALLEST,
    ),
    Claim(
        "PaCX-MAE is better than ridge from pixels to the teachers, all labels",
        "pacx", "pixels-teachers", PHYSIOLOGY_TASKS, 1.0, "best", "above", 0.01, _SMALLEST,
    ),
    Claim(
        "PaCX-MAE is better than ridge from the frozen MAE to the teachers, all labels",
        "pacx", "mae-teachers", PHYSIOLOGY_TASKS, 1.0, "best", "above", 0.01, _SMALLEST,
    ),
    Claim(
        "The true states as targets teach as much as the teachers",
        "pacx-states", "pacx", PHYSIOLOGY_TASKS, 1.0, "best", "within", 0.02, _TWICE,
    ),
    Claim(
        "What a linear model of the states explains of the teachers teaches as much as they do",
        "pacx-state-part", "pacx", PHYSIOLOGY_TASKS, 1.0, "best", "within", 0.02, _TWICE,
    ),
    Claim(
        "That part of untrained teachers teaches as much as that of trained ones",
        "pacx-untrained-state-part", "pacx-state-part", PHYSIOLOGY_TASKS, 1.0, "best", "within",
        0.02, _TWICE,
    ),
    Claim(
        "Teachers without that part teach no more than shuffled pairs",
        "pacx-state-removed", "pacx-shuffled", PHYSIOLOGY_TASKS, 1.0, "best", "within", 0.02,
        _TWICE,
    ),
)  # fmt: skip


def judge_claims(run: Run, dataset: Dataset, models: Sequence[str]) -> pd.DataFrame:
    """What one run says of each claim.

    Args:
        run: A phantom run.
        dataset: `phantom-truth`.
        models: What the run holds; a claim about another model is left out.

    Returns:
        One row a claim: `claim`, `primary`, `model`, `reference`, `pooling` and
        `reference_pooling` (the readings), `estimate`, `low`, `high` (95 %, over test patients),
        `kind`, `margin`, `p` (one-sided, or of two one-sided tests), `p_holm` (of the primary
        claims) and `holds`.
    """
    rows = []
    for claim in (*PRIMARY, *SECONDARY):
        if not {claim.model, claim.reference} <= set(models):
            continue
        few = min(run.profile.label_efficiency.fractions)
        usual = {"tasks": claim.tasks, "fraction": few if claim.fraction == FEW else claim.fraction}
        readings = {
            model: best_reading(run, dataset, model, **usual)
            if claim.pooling == "best"
            else claim.pooling
            for model in (claim.model, claim.reference)
        }
        (ours, spread), (theirs, base) = (
            macro_score(run, dataset, model, pooling=reading, **usual)
            for model, reading in readings.items()
        )
        test = superiority_p if claim.kind == "above" else equivalence_p
        low, high = interval(0.0, spread - base)[1:]
        rows.append(
            {
                "claim": claim.text, "primary": claim in PRIMARY,
                "model": claim.model, "reference": claim.reference,
                "pooling": readings[claim.model], "reference_pooling": readings[claim.reference],
                "estimate": ours - theirs, "low": low, "high": high,
                "kind": claim.kind, "margin": claim.margin, "p": test(spread - base, claim.margin),
            }
        )  # fmt: skip
    if not rows:
        return pd.DataFrame(columns=_COLUMNS)
    table = pd.DataFrame(rows)
    first = table["primary"]
    table.loc[first, "p_holm"] = holm(table.loc[first, "p"].to_numpy())
    table["holds"] = table["p_holm"].fillna(table["p"]) < ALPHA
    return table
