"""What the paper published, read from `paper.yaml`: the only place where its numbers are typed."""

from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from pacx.errors import PacxError

#: How the book writes the names of models and variants.
MODEL_NAMES = {
    "random": "Random", "imagenet": "ImageNet", "mae": "MAE", "pacx": "PaCX-MAE",
    "ecg_only": "ECG only", "labs_only": "Labs only",
    "contrastive_only": "Contrastive only", "regression_only": "Regression only",
}  # fmt: skip


@cache
def _paper() -> dict:
    return yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))


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


def caption(table: str) -> str:
    """What a published table shows and where it stands, with a citation, in Markdown."""
    about = _paper()[table]
    return f"{about['caption']} Source: {about['source']} {{cite}}`{_paper()['paper']['key']}`."


def pipe_table(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown pipe table."""
    header = [str(column).replace("_", " ") for column in frame.columns]
    rows = [header, ["---"] * len(header), *frame.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in rows)
