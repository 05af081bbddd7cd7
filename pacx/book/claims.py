"""What the book's prose includes about claims: of this run, of the evidence, and those to come."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pacx.evaluation import paper
from pacx.evaluation.evidence import (
    load_evidence,
    pool,
    pooled_claims,
    provenance_of_evidence,
    superseded,
)
from pacx.evaluation.statistics import Estimate, difference_of
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
:::{figure} _generated/ladder.svg
:alt: Dot plots of AUROC with 95 % intervals, one panel for the tasks of physiology, one for \
those of anatomy. A row is a model or baseline, from random weights over pixels, MAE and PaCX-MAE \
up to the network trained on the labels, the teachers and the true states. A dashed line is chance.

Who gets how far in this run. All are read by converged linear probes on the same test patients, \
but for the teachers, whose test patients are others of the same population.
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
        "ladder": _ladder(run, folder),
        "headline": _headline(run),
        "claims_to_come": paper.pipe_table(claims_to_come()),
        "superseded": _superseded(evidence),
        "claims": _marked(evidence, _claims),
        "evidence": _marked(evidence, _evidence),
        "effects": _effects(run, evidence),
    }


def _draw(figure: Figure, file: Path, **options: object) -> None:
    """The same figure gives the same bytes."""
    figure.savefig(file, **options)
    plt.close(figure)


def _ladder(run: Run, folder: Path) -> str:
    """The figure of who gets how far in this run, with its words."""
    scores = run.find_results("ladder_all")
    if scores is None:
        return "This run holds no table `ladder_all`, which [](../notebooks/09_components) makes."
    _draw(ladder(scores), folder / "ladder.svg", metadata={"Date": None})
    return _LADDER


def _headline(run: Run) -> str:
    """This run's claims, then its scores by reading and probe."""
    claims, scores = run.find_results("claims"), run.find_results("ladder_all")
    blocks = ["This run holds no table `claims`, which [](../notebooks/09_components) makes."]
    if claims is not None:
        blocks = [paper.pipe_table(claims_in_words(claims))]
    if scores is not None:
        fractions = (1.0, scores["fraction"].min())
        for group, fraction in product(scores["group"].unique(), fractions):
            table = paper.pipe_table(ladder_in_words(scores, group, fraction))
            title = f"AUROC, {group}, {fraction:.0%} of the labels"
            blocks.append(f":::{{dropdown}} {title}\n{table}\n:::")
    return "\n\n".join(blocks)


def _superseded(folder: Path) -> str:
    """One line where the committed evidence no longer bears a claim; empty where it does."""
    reason = superseded(folder)
    return f"**Superseded evidence.** {reason} See the [protocol](protocol)." if reason else ""


def _marked(folder: Path, write: Callable[[Path], str]) -> str:
    """What shows the committed evidence, below the line that says whether it is superseded."""
    if not folder.is_dir():
        return "Nobody has gathered the evidence yet."
    return f"{_superseded(folder)}\n\n{write(folder)}".strip()


def _claims(folder: Path) -> str:
    """The claims of chapter 09 in the committed evidence, then the gain of untrained teachers."""
    claims = pooled_claims(folder)
    counts = claims["low"].isna()  # without an interval the claim is a count of tasks
    holds = claims["holds"].map("{:.0f}".format) + claims["runs"].map(" of {}".format)
    tasks = claims["estimate"].map("{:.0f}".format) + claims["runs"].map(" of {}".format)
    table = pd.DataFrame(
        {
            "claim": claims["claim"],
            "pooled [95 %], or tasks": tasks.where(counts, _intervals(claims, "estimate")),
            "holds in": holds.mask(counts, ""),
        }
    )
    untrained = "model == 'pacx-untrained' and pooling == 'cls' and outcome.str.startswith('phys')"
    gains = pool(load_evidence("controls", folder).query(untrained))
    above = gains["above"].map(str) + gains["runs"].map(" of {}".format)
    control = pd.DataFrame(
        {
            "outcome": gains["outcome"],
            "pooled [95 %]": _intervals(gains, "value"),
            "above zero in": above,
        }
    )
    return (
        f"{paper.pipe_table(table)}\n\nBeside them, a control: teachers with random weights minus "
        f"MAE.\n\n{paper.pipe_table(control)}"
    )


def _intervals(table: pd.DataFrame, value: str) -> list[str]:
    return [str(Estimate(*row)) for row in table[[value, "low", "high"]].itertuples(index=False)]


def _evidence(folder: Path) -> str:
    """Who gathered the committed evidence, with what, and how long it took."""
    made = provenance_of_evidence(folder)
    made.pop("superseded", None)
    seconds = pd.DataFrame(made.pop("seconds"))
    seconds["sum"] = seconds.drop(columns=["cohort", "seed"]).sum(axis=1)
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
        if not superseded(evidence):  # its settings were others
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
