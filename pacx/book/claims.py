"""What the book's prose includes about claims: of this run, of the evidence, and those to come."""

from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pacx.evaluation import paper
from pacx.evaluation.evidence import (
    NOT_GATHERED,
    load_evidence,
    pool,
    pooled_claims,
    provenance_of_evidence,
)
from pacx.evaluation.statistics import Estimate, difference_of
from pacx.figures.components import repeated
from pacx.figures.first_page import claims_in_words, claims_to_come, ladder_in_words, one_patient
from pacx.figures.ladder import ladder
from pacx.figures.style import use_style
from pacx.figures.tables import POOLING_NAMES
from pacx.run import Run

#: Points where text and public code differ and encoders were trained: result table, model, and
#: what it is held against.
_EFFECTS = {
    "mask ratio: the other minus the profile's": ("controls", "mae-other-ratio", "mae"),
    "trained LayerNorms: the final one minus all": ("keeping", "pacx-finalnorm", "pacx"),
    "targets: standardised minus raw": ("direct", "pacx", "pacx-raw"),
}

#: The ladder on the first page: always the same words, whatever the run says.
_LADDER = """\
:::{{figure}} _generated/ladder.svg
:alt: Dot plots of AUROC, {dots}, one panel for the tasks of physiology, one for \
those of anatomy. A row is a model or baseline, from random weights over pixels, MAE and PaCX-MAE \
up to the network trained on the labels, the teachers and the true states. A dashed line is chance.

Scores of all models {where}: {dots}. All are read by converged linear probes on the same test \
patients, except the teachers, whose test patients are others of the same population.
:::"""


#: The nine repetitions: likewise.
_REPEATED = """\
:::{figure} _generated/claims.svg
:alt: One row a claim, below its text. Small dots are the differences in AUROC in each fresh \
cohort, a triangle is this run, a diamond with a 95 % interval is the cohorts' mean. A grey band \
or dotted line is the claim's margin.

Each cohort has patients and a training seed of its own. A claim of a gain holds where the \
mean is shown to lie right of the dotted line, a claim of equivalence where it is shown to lie \
within the band. The mean of a claim that does not hold is hollow.
:::"""


def parts_about_claims(run: Run, evidence: Path, folder: Path) -> dict[str, str]:
    """Markdown by name, and the figures that it shows, which are drawn into `folder`.

    Args:
        run: Whose result tables.
        evidence: The committed evidence.
        folder: Of the book's generated parts.
    """
    use_style()
    # A film in SVG would be half of the first page's weight.
    _draw(one_patient(), folder / "patient.webp", dpi=160, pil_kwargs={"quality": 85})
    return {
        "ladder": _ladder(run, evidence, folder),
        "headline": _headline(run, evidence),
        "claims_to_come": paper.pipe_table(claims_to_come()),
        "evidence_note": "" if evidence.is_dir() else f"**One run.** {NOT_GATHERED}",
        "claims": _claims(run, evidence, folder),
        "evidence": _evidence(evidence),
        "effects": _effects(run, evidence),
    }


def _draw(figure: Figure, file: Path, **options: object) -> None:
    """The same figure gives the same bytes."""
    figure.savefig(file, **options)
    plt.close(figure)


def _ladder(run: Run, evidence: Path, folder: Path) -> str:
    """The figure of how far each model gets: a dot a cohort, or with intervals in this run."""
    scores = load_evidence("ladder_all", evidence)
    where, dots = "on the fresh cohorts", "a dot a cohort and a tick at their mean"
    if scores is None:
        scores, where, dots = run.find_results("ladder_all"), "in this run", "95 % intervals"
    if scores is None:
        return "This run holds no table `ladder_all`, which [](../notebooks/09_components) makes."
    _draw(ladder(scores), folder / "ladder.svg", metadata={"Date": None})
    return _LADDER.format(where=where, dots=dots)


def _headline(run: Run, evidence: Path) -> str:
    """The claims, of all cohorts where there are any, and this run's scores by reading."""
    claims, scores = run.find_results("claims"), run.find_results("ladder_all")
    blocks = ["This run holds no table `claims`, which [](../notebooks/09_components) makes."]
    if claims is not None:
        blocks = [_in_two_tables(claims, "in this run")]
    if evidence.is_dir():
        told = _in_two_tables(pooled_claims(evidence), "on all cohorts")
        blocks = [told, f":::{{dropdown}} The same claims in this run\n{blocks[0]}\n:::"]
    if scores is not None:
        fractions = (1.0, scores["fraction"].min())
        for group, fraction in product(scores["group"].unique(), fractions):
            table = paper.pipe_table(ladder_in_words(scores, group, fraction))
            title = f"AUROC, {group}, {fraction:.0%} of the labels"
            blocks.append(f":::{{dropdown}} {title}\n{table}\n:::")
    return "\n\n".join(blocks)


def _in_two_tables(claims: pd.DataFrame, where: str) -> str:
    """Primary claims, then secondary ones: only the p-values of the former are corrected."""
    parts = []
    for title, primary in (("Primary claims", True), ("Secondary claims", False)):
        table = claims_in_words(claims, primary=primary)
        parts.append(f"**{title} {where}**\n\n{paper.pipe_table(table)}")
    return "\n\n".join(parts)


def _claims(run: Run, evidence: Path, folder: Path) -> str:
    """The claims on all cohorts, as dots and in numbers, and how far this run lies from them."""
    if not evidence.is_dir():
        return NOT_GATHERED
    pooled, claims = pooled_claims(evidence), load_evidence("claims", evidence)
    alone = pooled[pooled["claim"].isin(claims["claim"])]
    ours = run.find_results("claims")
    named = [t if t is None else t.assign(row=t["claim"]) for t in (claims, ours)]
    shown = alone.rename(columns={"claim": "row", "estimate": "value"})
    figure = repeated(named[0], shown, "estimate", named[1])
    _draw(figure, folder / "claims.svg", metadata={"Date": None})
    counts = pd.DataFrame({"claim": alone["claim"]})
    counts["holds alone in"] = [f"{row.holds_in:.0f} of {row.runs}" for row in alone.itertuples()]
    if ours is not None:
        spread = claims.groupby("claim")["estimate"].std().reindex(alone["claim"]).to_numpy()
        this = ours.set_index("claim")["estimate"].reindex(alone["claim"]).to_numpy()
        far = pd.Series((this - alone["estimate"].to_numpy()) / spread, alone.index)
        counts["this run, standard deviations from the mean"] = far.map(
            "{:+.1f}".format, na_action="ignore"
        ).fillna("not in this run")
    return (
        f"{_REPEATED}\n\n{_in_two_tables(pooled, 'on all cohorts')}\n\n"
        f"**Each cohort alone, and this run**\n\n{paper.pipe_table(counts)}"
    )


def _evidence(folder: Path) -> str:
    """With what the committed evidence was gathered, and how long it took."""
    if not folder.is_dir():
        return NOT_GATHERED
    made = provenance_of_evidence(folder)
    seconds = pd.DataFrame(made.pop("seconds"))
    seconds["sum"] = seconds.drop(columns="cohort").sum(axis=1)
    facts = pd.DataFrame({"what": made.keys(), "value": [str(v) for v in made.values()]})
    return (
        f"{paper.pipe_table(facts)}\n\nSeconds of each repetition, on one core:\n\n"
        f"{paper.pipe_table(seconds)}"
    )


def _effects(run: Run, evidence: Path) -> str:
    """What choices between text and public code change, in this run and in the evidence."""
    rows = []
    for point, (name, model, reference) in _EFFECTS.items():
        pair = f"model == '{model}' and reference == '{reference}'"
        tables = {"this run": run.find_results(name)}
        if evidence.is_dir():
            tables["evidence"] = load_evidence(name, evidence)
        for where, table in tables.items():
            if table is None:
                continue
            table = table.query(pair)
            if "probe" in table:
                table = table[table["probe"] == "converged"]
            if where == "evidence":
                pooled = pool(table)
                table = pooled.rename(columns={k: f"difference_{k}" for k in Estimate._fields})
            for _, row in table.iterrows():
                outcome = row.get("outcome", "physiology")
                if name == "direct":
                    outcome = f"{outcome}, {row['fraction']:.0%} of labels"
                elif name == "controls":
                    outcome = f"{outcome}, {POOLING_NAMES[row['pooling']]}"
                rows.append((point, outcome, where, str(difference_of(row))))
    table = pd.DataFrame(rows, columns=["point", "outcome", "where", "value"])
    if table.empty:
        return "This run has trained none of them."
    table = table.pivot_table(
        index=["point", "outcome"], columns="where", values="value", aggfunc="first", sort=False
    )
    table = table.reindex(columns=["this run", "evidence"]).fillna("").reset_index()
    return paper.pipe_table(table)
