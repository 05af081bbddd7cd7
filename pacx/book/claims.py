"""What the book's prose includes about claims: of this run, of the evidence, and those to come."""

from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pacx.evaluation import paper
from pacx.evaluation.evidence import (
    FOLDER,
    load_evidence,
    pool,
    pooled_claims,
    provenance_of_evidence,
    superseded,
)
from pacx.evaluation.statistics import Estimate
from pacx.figures.first_page import claims_in_words, claims_to_come, ladder_in_words, one_patient
from pacx.figures.ladder import ladder
from pacx.figures.style import use_style
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
        "claims": _claims(evidence),
        "evidence": _evidence(evidence),
        "effects": _effects(run),
    }


def _draw(figure: Figure, file: Path, **options: object) -> None:
    """The same figure gives the same bytes."""
    figure.savefig(file, **options)
    plt.close(figure)


def _ladder(run: Run, folder: Path) -> str:
    """The figure of who gets how far in this run, with its words."""
    if not (run.results / "ladder_all.parquet").is_file():
        return "This run holds no table `ladder_all`, which [](../notebooks/09_components) makes."
    _draw(ladder(run.load_results("ladder_all")), folder / "ladder.svg", metadata={"Date": None})
    return _LADDER


def _headline(run: Run) -> str:
    """This run's claims, then its scores by reading and probe."""
    parts = ["This run holds no table `claims`, which [](../notebooks/09_components) makes."]
    if (run.results / "claims.parquet").is_file():
        parts = [paper.pipe_table(claims_in_words(run.load_results("claims")))]
    if (run.results / "ladder_all.parquet").is_file():
        table = run.load_results("ladder_all")
        few = table["fraction"].min()
        for group, fraction in product(table["group"].unique(), (1.0, few)):
            shown = paper.pipe_table(ladder_in_words(table, group, fraction))
            title = f"AUROC, {group}, {fraction:.0%} of the labels"
            parts.append(f":::{{dropdown}} {title}\n{shown}\n:::")
    return "\n\n".join(parts)


def _superseded(folder: Path) -> str:
    """One line where the committed evidence no longer bears a claim; empty where it does."""
    reason = superseded(folder)
    return f"**Superseded evidence.** {reason} See the [protocol](protocol)." if reason else ""


def _marked(folder: Path, text: str) -> str:
    """What shows the committed evidence, below the line that says whether it is superseded."""
    return f"{_superseded(folder)}\n\n{text}".strip()


def _claims(folder: Path) -> str:
    """The claims of chapter 09 in the committed evidence, then the gain of untrained teachers."""
    if not folder.is_dir():
        return "Nobody has gathered the evidence yet."
    rows = [
        (
            c.claim,
            # Without an interval the claim is a count of tasks.
            f"{c.estimate:.0f} of {c.runs}"
            if pd.isna(c.low)
            else str(Estimate(c.estimate, c.low, c.high)),
            "" if pd.isna(c.low) else f"{c.holds:.0f} of {c.runs}",
        )
        for c in pooled_claims(folder).itertuples()
    ]
    claims = pd.DataFrame(rows, columns=["claim", "pooled [95 %], or tasks", "holds in"])
    untrained = "model == 'pacx-untrained' and pooling == 'cls' and outcome.str.startswith('phys')"
    rows = [
        (r.outcome, str(Estimate(r.value, r.low, r.high)), f"{r.above} of {r.runs}")
        for r in pool(load_evidence("controls", folder).query(untrained)).itertuples()
    ]
    gains = pd.DataFrame(rows, columns=["outcome", "pooled [95 %]", "above zero in"])
    return _marked(
        folder,
        f"{paper.pipe_table(claims)}\n\nBeside them, a control: teachers with random weights minus "
        f"MAE.\n\n{paper.pipe_table(gains)}",
    )


def _evidence(folder: Path) -> str:
    """Who gathered the committed evidence, with what, and how long it took."""
    if not folder.is_dir():
        return "Nobody has gathered it yet: the columns that show it are empty."
    made = provenance_of_evidence(folder)
    made.pop("superseded", None)
    seconds = pd.DataFrame(made.pop("seconds"))
    seconds["sum"] = seconds.drop(columns=["cohort", "seed"]).sum(axis=1)
    facts = pd.DataFrame({"what": made.keys(), "value": [str(v) for v in made.values()]})
    return _marked(
        folder,
        f"{paper.pipe_table(facts)}\n\nSeconds of each repetition, on one core:\n\n"
        f"{paper.pipe_table(seconds)}",
    )


def _effects(run: Run) -> str:
    """What choices between text and public code change, in this run and in the evidence."""
    parts = []
    for point, (name, model, reference) in _EFFECTS.items():
        pair = f"model == '{model}' and reference == '{reference}'"
        # Superseded evidence had other settings: its numbers would stand beside other choices.
        ours, repeated = pd.DataFrame(), None if superseded(FOLDER) else load_evidence(name)
        if (run.results / f"{name}.parquet").is_file():
            ours = run.load_results(name).query(pair)
        ours, repeated = (_converged(table) for table in (ours, repeated))
        pooled = pd.DataFrame() if repeated is None else pool(repeated.query(pair))
        for column, table, kind in (
            ("this run", ours, "difference_"),
            ("evidence", pooled, ""),
        ):
            for _, row in table.iterrows():
                about = row.get("outcome", "physiology")
                about = f"{about}, {row['fraction']:.0%} of labels" if name == "direct" else about
                read = {"cls": ", CLS token", "mean": ", mean of patches"}.get(row["pooling"], "")
                estimate = Estimate(*(row[f"{kind}{part}"] for part in ("value", "low", "high")))
                parts.append((point, about + read * (name == "controls"), column, str(estimate)))
    table = pd.DataFrame(parts, columns=["point", "outcome", "where", "value"])
    if table.empty:
        return "This run has trained none of them."
    table = table.pivot_table(
        index=["point", "outcome"], columns="where", values="value", aggfunc="first", sort=False
    )
    table = table.reindex(columns=["this run", "evidence"]).fillna("").reset_index()
    return paper.pipe_table(table)


def _converged(table: pd.DataFrame | None) -> pd.DataFrame | None:
    """Rows of the converged probe, where a table has several."""
    several = table is not None and "probe" in table
    return table[table["probe"] == "converged"] if several else table
