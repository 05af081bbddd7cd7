"""Tables for chapters: plain words, few digits, the paper's numbers marked as the paper's."""

from html import escape

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler

from pacx.evaluation.evidence import KEYS, load_evidence, pool
from pacx.evaluation.statistics import Estimate, difference_of
from pacx.figures.style import name_of
from pacx.paper import MODEL_NAMES, published

#: Our artefact -> the paper's column.
_IN_THE_PAPER = {
    "pacx-ecg": "ecg_only",
    "pacx-labs": "labs_only",
    "pacx-contrastive": "contrastive_only",
    "pacx-regression": "regression_only",
}


def show(frame: pd.DataFrame, digits: int = 3) -> Styler:
    """A data frame without its index, floats with few digits, `_` read as a space."""
    if "fraction" in frame:
        frame = frame.assign(fraction=frame["fraction"].map("{:.0%}".format, na_action="ignore"))
    if "task" in frame:
        frame = frame.assign(task=frame["task"].str.replace("_", " "))
    words = {column: str(column).replace("_", " ") for column in frame}
    text = frame.rename(columns=words)
    return text.style.hide().format(precision=digits, na_rep="").set_uuid("table")


def folded(table: Styler, summary: str) -> HTML:
    """A long table behind one line that opens it.

    Args:
        table: From `show` or `beside_the_evidence`.
        summary: The line.
    """
    return HTML(f"<details><summary>{escape(summary)}</summary>{table.to_html()}</details>")


def in_words(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A tidy result table with its intervals as text.

    Args:
        table: As `pacx.evaluation.statistics.paired_table` returns it.
        *columns: Columns to keep, in front.

    Returns:
        The columns, then model, score and difference with 95 % intervals.
    """
    return pd.DataFrame(
        {
            **{column: table[column] for column in columns},
            "model": table["model"].map(name_of),
            "score [95 %]": _text(table["value"], table["low"], table["high"]),
            "difference [95 %]": [
                "" if pd.isna(v) else str(Estimate(v, low, high))
                for v, low, high in zip(
                    table["difference_value"], table["difference_low"], table["difference_high"],
                    strict=True,
                )
            ],
        }
    )  # fmt: skip


def beside_the_paper(ours: pd.DataFrame, table: str) -> pd.DataFrame:
    """A published table with this run's numbers beside it, in the paper's order.

    Args:
        ours: Tidy results with the columns `dataset`, `metric`, `model`, `value`, `low`, `high`
            and, where the paper has them, `target` or `fraction`.
        table: Name of the published table, see `pacx.paper.published`.

    Returns:
        Text; a dash where the paper, or this run, has no number.
    """
    theirs = published(table)
    keys = [k for k in ("dataset", "target", "metric", "fraction") if k in theirs and k in ours]
    ours = ours.assign(
        model=ours["model"].replace(_IN_THE_PAPER),
        text=_text(ours["value"], ours["low"], ours["high"]),
    )
    models = [m for m in MODEL_NAMES if m in set(theirs["model"]) | set(ours["model"])]
    rows = theirs[keys].drop_duplicates().reset_index(drop=True)
    result = rows.copy()
    for source, frame, column in (("paper", theirs, "value"), ("this run", ours, "text")):
        frame = frame.assign(dataset=frame["dataset"].str.lower())
        for model in [m for m in models if m in set(frame["model"])]:
            part = frame[frame["model"] == model].drop_duplicates(keys).set_index(keys)[column]
            wanted = rows.assign(dataset=rows["dataset"].str.lower())
            values = part.reindex(pd.MultiIndex.from_frame(wanted))
            result[f"{MODEL_NAMES[model]}, {source}"] = [_cell(v) for v in values]
    return result


def beside_the_evidence(ours: pd.DataFrame, name: str) -> Styler:
    """This run's paired differences beside those of the repetitions on fresh cohorts.

    Args:
        ours: Result table of this run with paired differences.
        name: The evidence's table of the same shape.

    Returns:
        One row a row of `ours` with a difference; empty columns where nobody has gathered evidence.
    """
    ours = ours.dropna(subset=["difference_value"])
    ours = ours[ours["model"] != ours["reference"]].reset_index(drop=True)
    keys = [key for key in KEYS if key in ours]
    evidence = load_evidence(name)
    pooled = ours[keys][:0] if evidence is None else pool(evidence)
    pooled = pooled.reindex(columns=[*keys, "value", "low", "high", "runs", "above", "below"])
    both = ours[keys].merge(pooled, on=keys, how="left")
    told = [
        key for key in keys if key != "reference" and (key == "model" or ours[key].nunique() > 1)
    ]
    return show(
        both[told].assign(
            model=both["model"].map(name_of),
            **{"this run [95 %]": [str(difference_of(row)) for _, row in ours.iterrows()]},
            **_evidence_columns(both),
        )
    )


def in_the_evidence(name: str, query: str, *columns: str) -> Styler:
    """Paired differences of the repetitions alone, where this run has none to set beside them.

    Args:
        name: The evidence's table.
        query: Which of its rows, in pandas' words.
        *columns: Columns to keep, in front of the model.

    Returns:
        One row a combination, or a sentence where nobody has gathered evidence.
    """
    evidence = load_evidence(name)
    if evidence is None:
        return show(pd.DataFrame({"evidence": ["It is in the book's repository, not installed."]}))
    pooled = pool(evidence.query(query))
    models = pooled["model"].map(name_of)
    return show(pooled[list(columns)].assign(model=models, **_evidence_columns(pooled)))


def _evidence_columns(pooled: pd.DataFrame) -> dict[str, list[str]]:
    """What `pool` returns as text; empty where there is nothing."""
    known = pooled["runs"].notna()
    rows = list(zip(known, pooled.itertuples(), strict=True))
    return {
        "evidence [95 %]": [str(Estimate(r.value, r.low, r.high)) if ok else "" for ok, r in rows],
        "runs above, below zero": [
            f"{r.above:.0f}, {r.below:.0f} of {r.runs:.0f}".replace(" ", "\N{NO-BREAK SPACE}")
            if ok
            else ""
            for ok, r in rows
        ],
    }


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "–" if pd.isna(value) else f"{value:.3f}"


def _text(value: pd.Series, low: pd.Series, high: pd.Series) -> list[str]:
    return [
        f"{v:.3f} [{bottom:.3f},\N{NO-BREAK SPACE}{top:.3f}]"
        for v, bottom, top in zip(value, low, high, strict=True)
    ]
