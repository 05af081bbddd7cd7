"""What the paper published, read from `paper.yaml`: the only place where its numbers are typed."""

from functools import cache
from importlib import resources

import pandas as pd
import yaml

from pacx.errors import PacxError

#: How the book writes the names of models and variants.
MODEL_NAMES = {
    "random": "Random", "imagenet": "ImageNet", "mae": "MAE", "pacx": "PaCX-MAE",
    "ecg_only": "ECG only", "labs_only": "Labs only",
    "contrastive_only": "Contrastive only", "regression_only": "Regression only",
    "pacx-ecg": "ECG only", "pacx-labs": "Labs only",
    "pacx-contrastive": "Contrastive only", "pacx-regression": "Regression only",
}  # fmt: skip


@cache
def _paper() -> dict:
    return yaml.safe_load((resources.files("pacx") / "paper.yaml").read_text(encoding="utf-8"))


def published(table: str) -> pd.DataFrame:
    """A published table in tidy form.

    Args:
        table: `transfer`, `label_efficiency`, `alignment`, `components` or `settings`.

    Returns:
        One row a number: dataset, task or fraction or target, metric, model, value (AUROC, F1,
        IoU, Dice, cosine and R@5 all as shares of 1). `settings`: stage, setting, value (text).

    Raises:
        PacxError: There is no such table.
    """
    tables = [name for name, content in _paper().items() if "rows" in content]
    if table not in tables:
        raise PacxError(f"The paper has no table '{table}'. Choose one of {', '.join(tables)}.")
    wide = pd.DataFrame(_paper()[table]["rows"])
    if table == "settings":
        return wide
    models = [column for column in wide if column in MODEL_NAMES]
    keys = [column for column in wide if column not in MODEL_NAMES]
    return wide.melt(id_vars=keys, value_vars=models, var_name="model", value_name="value")


def markdown_table(table: str) -> str:
    """A published table in Markdown, with its caption, its source and a citation."""
    frame, about = published(table), _paper()[table]
    if table != "settings":
        digits = frame["metric"].map({"R@5": 4}).fillna(3).astype(int)
        frame["value"] = [f"{value:.{d}f}" for value, d in zip(frame["value"], digits, strict=True)]
        frame = wide_table(frame)
        if {"MAE", "PaCX-MAE"} <= set(frame.columns):
            change = 100 * (frame["PaCX-MAE"].astype(float) - frame["MAE"].astype(float))
            points = change.map("{:+.1f}".format).replace("-0.0", "+0.0")
            frame["PaCX-MAE minus MAE, points"] = points
    citation = f"{{cite}}`{_paper()['paper']['key']}`"
    return f"{about['caption']} Source: {about['source']} {citation}.\n\n{pipe_table(frame)}"


def wide_table(tidy: pd.DataFrame) -> pd.DataFrame:
    """One row a data set and metric, one column a model, both in the order in which they came."""
    keys = [column for column in tidy if column not in ("model", "value")]
    if "fraction" in tidy:
        tidy = tidy.assign(fraction=tidy["fraction"].map("{:.0%}".format))
    wide = tidy.pivot_table(
        index=keys, columns="model", values="value", aggfunc="first", sort=False
    )
    models = [model for model in tidy["model"].unique() if model in wide]
    return wide[models].rename(columns=MODEL_NAMES).rename_axis(columns=None).reset_index()


def pipe_table(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown pipe table."""
    header = [str(column).replace("_", " ") for column in frame.columns]
    rows = [header, ["---"] * len(header), *frame.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in rows)
