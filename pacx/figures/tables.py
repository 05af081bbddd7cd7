"""Tables for chapters: plain words, few digits, the paper's numbers marked as the paper's."""

from html import escape

import pandas as pd
from IPython.display import HTML, Markdown, display
from pandas.io.formats.style import Styler

from pacx.evaluation.evidence import KEYS, NOT_GATHERED, load_evidence, pool
from pacx.evaluation.paper import MODEL_NAMES, published
from pacx.evaluation.statistics import Estimate, difference_of
from pacx.figures.style import as_aggregate, name_of

#: Our artefact -> the paper's column.
_IN_THE_PAPER = {
    "pacx-ecg": "ecg_only",
    "pacx-labs": "labs_only",
    "pacx-contrastive": "contrastive_only",
    "pacx-regression": "regression_only",
}

#: How a table calls a pooling; a baseline's reading keeps its name.
POOLING_NAMES = {"cls": "CLS token", "mean": "mean of patches"}
_CODES = {
    "pooling": POOLING_NAMES,
    "probe": {"paper": "the paper's"},
    "target": {"ecg": "ECG"},
    "teacher": {"ecg": "ECG"},
}


def show(frame: pd.DataFrame, digits: int = 3) -> Styler:
    """A table of aggregates without its index, floats with few digits, codes and `_` in words.

    Of real data a page keeps it: rows must not be single patients, and small counts must have been
    taken out by `pacx.book.privacy.declare`.
    """
    if "fraction" in frame:
        frame = frame.assign(fraction=frame["fraction"].map("{:.0%}".format, na_action="ignore"))
    if "task" in frame:
        frame = frame.assign(task=frame["task"].str.replace("_", " "))
    frame = frame.replace({column: codes for column, codes in _CODES.items() if column in frame})
    words = {column: str(column).replace("_", " ") for column in frame}
    text = frame.rename(columns=words)
    return as_aggregate(text.style.hide().format(precision=digits, na_rep="").set_uuid("table"))


def say(text: str) -> None:
    """Show a sentence in Markdown that tells aggregates; of real data a page keeps it."""
    display(as_aggregate(Markdown(text)))


def score_in_words(value: float, low: float, high: float) -> str:
    """A score with its interval; a table breaks no line within the brackets."""
    return f"{value:.3f} [{low:.3f},\N{NO-BREAK SPACE}{high:.3f}]"


def folded(table: Styler, summary: str) -> HTML:
    """A long table behind one line that opens it."""
    return as_aggregate(
        HTML(f"<details><summary>{escape(summary)}</summary>{table.to_html()}</details>")
    )


def in_words(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A table of `pacx.evaluation.statistics.paired_table` with its intervals as text.

    Returns:
        The columns, then model, score and difference with 95 % intervals.
    """
    return pd.DataFrame(
        {
            **{column: table[column] for column in columns},
            "model": table["model"].map(name_of),
            "score [95 %]": list(map(score_in_words, table["value"], table["low"], table["high"])),
            "difference [95 %]": [
                "" if pd.isna(row["difference_value"]) else str(difference_of(row))
                for _, row in table.iterrows()
            ],
        }
    )


def beside_the_paper(ours: pd.DataFrame, table: str) -> pd.DataFrame:
    """A published table with this run's numbers below each of its rows, in the paper's order.

    The paper reads the CLS token, so rows of other poolings are left out. The paper's own probe has
    a line of its own, where this run has trained it.

    Args:
        ours: Tidy results with the columns `dataset`, `metric`, `model`, `value`, `low`, `high`,
            those of a paired difference from the MAE, and, where the paper has them, `target` or
            `fraction`; `pooling` and `probe` where there are several.
        table: Name of the published table, see `pacx.evaluation.paper.published`.

    Returns:
        Text: the keys that differ, `source`, one column a model, and PaCX-MAE minus MAE; a dash
        where the paper, or this run, has no number.
    """
    theirs = published(table)
    if "pooling" in ours:  # masks have none
        ours = ours[ours["pooling"].isna() | (ours["pooling"] == "cls")]
    by_theirs = ours["probe"].eq("paper") if "probe" in ours else pd.Series(False, ours.index)
    keys = [k for k in ("dataset", "target", "metric", "fraction") if k in theirs and k in ours]
    ours = ours.assign(model=ours["model"].replace(_IN_THE_PAPER))
    ours["dataset"] = ours["dataset"].replace({"tb": "TB (Shenzhen)"})
    models = [m for m in MODEL_NAMES if m in set(theirs["model"])]
    rows = theirs[keys].drop_duplicates()
    sources = {
        "paper": _cells(theirs, keys),
        "this run": _cells(ours[~by_theirs], keys),
        "this run, the paper's probe": _cells(ours[by_theirs], keys),
    }
    lines = []
    for row in rows.itertuples(index=False):
        for source, cells in sources.items():
            scores = [cells.get((*map(_key, row), model)) for model in models]
            if source not in ("paper", "this run") and not any(scores):
                continue
            mae, pacx = (cells.get((*map(_key, row), model)) for model in ("mae", "pacx"))
            texts = ["–" if score is None else _score(score) for score in scores]
            lines.append((*row, source, *texts, _change(mae, pacx)))
    names = [MODEL_NAMES[model] for model in models]
    result = pd.DataFrame(lines, columns=[*keys, "source", *names, "PaCX-MAE minus MAE"])
    if "target" in keys:
        result["target"] = result["target"].replace(_CODES["target"])
    needless = [key for key in keys if rows[key].nunique() == 1]
    if not {"mae", "pacx"} <= set(models):
        needless.append("PaCX-MAE minus MAE")
    return result.drop(columns=needless)


def by_model(beside: pd.DataFrame, caption: str) -> Styler:
    """What `beside_the_paper` returns, turned: models and sources as rows, measures as columns.

    Args:
        beside: With `dataset`, `metric` and `source`.
        caption: What all cells have in common.
    """
    models = beside.columns.difference(["dataset", "metric", "source"], sort=False)
    scores = beside.melt(["dataset", "metric", "source"], models, "model", "score")
    scores["measure"] = scores["dataset"] + ", " + scores["metric"]
    table = scores.pivot_table("score", ["model", "source"], "measure", "first", sort=False)
    return show(table.fillna("–").reset_index()).set_caption(caption)


def beside_the_evidence(ours: pd.DataFrame, name: str) -> Styler:
    """This run's paired differences beside those of the repetitions on fresh cohorts.

    Returns:
        One row a row of `ours` with a difference. Where the evidence is missing, the caption says
        so.
    """
    ours = ours.dropna(subset=["difference_value"])
    ours = ours[ours["model"] != ours["reference"]].reset_index(drop=True)
    keys = [key for key in KEYS if key in ours]
    varying = [key for key in keys if key != "reference" and ours[key].nunique() > 1]
    beside = ours[varying].assign(
        **{"this run [95 %]": [str(difference_of(row)) for _, row in ours.iterrows()]}
    )
    if "model" in beside:
        beside["model"] = beside["model"].map(name_of)
    if (evidence := load_evidence(name)) is None:
        return show(beside).set_caption(NOT_GATHERED)
    pooled = ours[keys].merge(pool(evidence), on=keys, how="left")
    return show(beside.assign(**_evidence_columns(pooled)))


def in_the_evidence(name: str, query: str, *columns: str) -> Styler:
    """Paired differences of the repetitions alone, where this run has none to set beside them.

    Args:
        name: The evidence's table.
        query: Which of its rows, in pandas' words.
        *columns: Columns to keep, in front of the model.

    Returns:
        One row a combination; none where the evidence is missing, which the caption says.
    """
    if (evidence := load_evidence(name)) is None:
        return show(pd.DataFrame()).set_caption(NOT_GATHERED)
    pooled = pool(evidence.query(query))
    models = pooled["model"].map(name_of)
    return show(pooled[list(columns)].assign(model=models, **_evidence_columns(pooled)))


def _evidence_columns(pooled: pd.DataFrame) -> dict[str, list[str]]:
    """What `pool` returns as text; empty where there is nothing."""
    gathered = pooled["runs"].notna()
    rows = list(zip(gathered, pooled.itertuples(), strict=True))
    return {
        "evidence [95 %]": [str(Estimate(r.value, r.low, r.high)) if ok else "" for ok, r in rows],
        "runs above, below zero": [
            f"{r.above:.0f}, {r.below:.0f} of {r.runs:.0f}".replace(" ", "\N{NO-BREAK SPACE}")
            if ok
            else ""
            for ok, r in rows
        ],
    }


def _cells(frame: pd.DataFrame, keys: list[str]) -> dict[tuple, tuple]:
    """(key, ..., model) -> its row; of several, such as single tasks, the first."""
    cells = {}
    for row in frame.itertuples(index=False):
        cells.setdefault((*(_key(getattr(row, k)) for k in keys), row.model), row)
    return cells


def _key(value: str | float) -> str | float:
    return value.lower() if isinstance(value, str) else value


def _score(row: tuple) -> str:
    if not hasattr(row, "low"):
        return f"{row.value:.{_digits(row)}f}"
    return score_in_words(row.value, row.low, row.high)


def _digits(row: tuple) -> int:
    """The paper gives R@5 as whole hits of 464."""
    return 4 if row.metric == "R@5" else 3


def _change(mae: tuple | None, pacx: tuple | None) -> str:
    """PaCX-MAE minus MAE, with its paired interval where one was measured."""
    if mae is None or pacx is None:
        return "–"
    if pd.isna(getattr(pacx, "difference_low", None)):
        return f"{pacx.value - mae.value:+.{_digits(pacx)}f}"
    return str(difference_of(pacx._asdict()))
