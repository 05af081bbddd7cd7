"""What the first page of the book shows: one patient's three records, and a run's claims."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pacx.constants import LABS, LEADS_MIMIC
from pacx.evaluation.claims import PRIMARY, SECONDARY
from pacx.evaluation.statistics import Estimate
from pacx.figures.cxr import OUTLINES
from pacx.figures.style import COLOURS, name_of
from pacx.figures.tables import POOLING_NAMES, score_in_words
from pacx.phantom.ecg import render_ecgs
from pacx.phantom.labs import draw_labs
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients

#: Blood tests that the first page shows.
SHOWN_LABS = (
    "Creatinine", "Urea Nitrogen", "Phosphate", "Hemoglobin", "Potassium", "Sodium",
    "Platelet Count",
)  # fmt: skip
#: States in which the patient of the first page is the worst of a crowd.
SHARED = ("dilation", "fluid", "renal", "anaemia")
HZ, _SECONDS = 500, 5
_CROWD, _SEED = 400, 20261100  # the seed of no run
_MARGINS = {"above": "above\N{NO-BREAK SPACE}{:g}", "within": "within ±\N{NO-BREAK SPACE}{:g}"}


def one_patient() -> Figure:
    """X-ray, lead II and seven blood tests of one phantom with a failing heart and kidneys.

    The same patient in every run. The titles say what `records` shows; a test holds them to it.
    """
    xray, masks, ecg, labs = records()
    figure = plt.figure(figsize=(7.0, 5.4))
    above, below = figure.subfigures(2, 1, height_ratios=(3.2, 1.5))
    left, right = above.subplots(1, 2, width_ratios=(1, 0.85))
    left.imshow(xray, cmap="gray", vmin=0, vmax=255)
    left.contour(masks["heart"], levels=[0.5], colors=[OUTLINES["heart"]], linewidths=1.4)
    left.set_axis_off()
    left.set_title("X-ray: a wide heart", fontsize=10)
    _draw_labs(right, labs)
    _draw_ecg(below.subplots(), ecg)
    return figure


def records() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, pd.Series]:
    """The records of `one_patient`.

    Returns:
        Film (224, 224) uint8, its masks (224, 224) bool by name, lead II (T,) in mV, and the blood
        tests by name in their units.
    """
    crowd = sample_patients(_CROWD, seed=_SEED)
    plain = crowd[~crowd[["pacemaker", "tube", "pneumothorax"]].any(axis=1)]
    patient = plain.loc[[plain[list(SHARED)].min(axis=1).idxmax()]]
    xrays, masks = render_radiographs(patient, 224, seed=_SEED, masks=True)
    ecg = render_ecgs(patient, HZ, seed=_SEED)[0, LEADS_MIMIC.index("II")]
    labs = pd.Series(draw_labs(patient, seed=_SEED)[0], index=[lab.name for lab in LABS])
    return xrays[0], {name: mask[0] for name, mask in masks.items()}, ecg[: HZ * _SECONDS], labs


def claims_to_come() -> pd.DataFrame:
    """The claims that runs and evidence are to judge, as text.

    Returns:
        `claim`, `kind`, `compares`, `margin` and `reason for the margin`.
    """
    return pd.DataFrame(
        {
            "claim": claim.text,
            "kind": "primary" if claim in PRIMARY else "secondary",
            "compares": f"{name_of(claim.model)} minus {name_of(claim.reference)}",
            "margin": _MARGINS[claim.kind].format(claim.margin),
            "reason for the margin": claim.why,
        }
        for claim in (*PRIMARY, *SECONDARY)
    )


def claims_in_words(claims: pd.DataFrame, *, primary: bool) -> pd.DataFrame:
    """What is known of the primary or of the secondary claims, as text.

    Args:
        claims: From `pacx.evaluation.claims.judge_claims` or
            `pacx.evaluation.evidence.pooled_claims`.
        primary: Which. The p-values of primary claims are corrected, the others are not.

    Returns:
        Three columns, so that a phone shows them all: claim with margin, difference, verdict.
    """
    p, title = ("p_holm", "holds (p after Holm)") if primary else ("p", "holds (raw p)")
    return pd.DataFrame(
        {
            "claim: margin": f"{row['claim']}: {_MARGINS[row['kind']].format(row['margin'])}",
            "difference in AUROC [95 %]": str(Estimate(row["estimate"], row["low"], row["high"])),
            title: f"{'yes' if row['holds'] else 'no'} ({_p_in_words(row[p])})",
        }
        for row in claims[claims["primary"] == primary].to_dict("records")
    )


def ladder_in_words(ladder: pd.DataFrame, group: str, fraction: float) -> pd.DataFrame:
    """AUROC of one group of tasks, `physiology` or `anatomy`, of `pacx.evaluation.ladder.ladder`.

    As text: a row a model, a column a reading and probe.
    """
    chosen = ladder[(ladder["group"] == group) & (ladder["fraction"] == fraction)]
    rows: dict[str, dict[str, str]] = {}
    for row in chosen.itertuples():
        reading = POOLING_NAMES.get(row.pooling)
        name = name_of(row.model)
        if reading is None:  # a baseline has one reading, the teachers one a signal
            reading, probe = "best reading", ""
            name = f"{name.partition(':')[0]}, {row.pooling}"
        else:
            probe = {"converged": ", converged probe", "paper": ", the paper's probe"}[row.probe]
        rows.setdefault(name, {})[reading + probe] = score_in_words(row.value, row.low, row.high)
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    return table.rename_axis("features").reset_index()


def _p_in_words(p: float) -> str:
    return "<\N{NO-BREAK SPACE}0.001" if p < 0.001 else f"{p:.3f}"


def _draw_labs(axis: Axes, values: pd.Series) -> None:
    labs = [next(lab for lab in LABS if lab.name == name) for name in SHOWN_LABS]
    axis.axvspan(0, 1, color="#dcebf5", linewidth=0, zorder=0)
    for row, lab in enumerate(labs):
        place = (values[lab.name] - lab.low) / (lab.high - lab.low)
        colour = COLOURS["blue" if 0 <= place <= 1 else "vermilion"]
        axis.plot(np.clip(place, -1, 2), row, "o", color=colour, markersize=6)
        axis.text(2.2, row, f"{values[lab.name]:.3g}", fontsize=9, va="center", color=colour)
    axis.set_yticks(range(len(labs)), [f"{lab.name} ({lab.unit})" for lab in labs])
    axis.set_xticks([0, 1], ["low", "high"])
    axis.set(xlim=(-1.2, 2.8), ylim=(len(labs) - 0.5, -0.6), xlabel="reference range")
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.set_title("Blood: failing kidneys, anaemia", fontsize=10)


def _draw_ecg(axis: Axes, ecg: np.ndarray) -> None:
    """On the paper of an ECG: small squares of 0.04 s and 0.1 mV, large ones of five times that."""
    bottom, top = ecg.min() - 0.25, ecg.max() + 0.25
    for step, width in ((1, 0.3), (5, 0.7)):
        style = {"color": "#eda9a9", "linewidth": width, "zorder": 0}
        axis.vlines(np.arange(0, _SECONDS, 0.04 * step), bottom, top, **style)
        axis.hlines(np.arange(-2, 3, 0.1 * step), 0, _SECONDS, **style)
    axis.plot(np.arange(len(ecg)) / HZ, ecg, color="black", linewidth=1)
    axis.set(xlim=(0, _SECONDS), ylim=(bottom, top), xlabel="time (s)", ylabel="lead II (mV)")
    axis.tick_params(labelsize=8)
    axis.set_title("ECG: a fast rhythm", fontsize=10)
