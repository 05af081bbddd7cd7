"""Tables of chapter 14: measured where the profile reads the real X-rays, else as committed."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

import pacx
from pacx.errors import PacxError
from pacx.files import new_file
from pacx.run import Run

#: Where a checkout of the book keeps them; an installed package has none.
FOLDER = Path(pacx.__file__).parents[1] / "book" / "real"


def measured(run: Run, name: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table of aggregates over real X-rays, with profile, commit and date.

    A run that pretrains on `nih` calls `measure` and keeps the table in `results/real/<name>.csv`,
    to be copied to `book/real`; any other run reads it there.

    Raises:
        PacxError: The table is to be read, and is not there.
    """
    if run.profile.pretraining == "nih":
        made = run.provenance()
        facts = {"profile": made["profile"], "commit": made["commit"], "made": made["made"][:10]}
        with new_file(run.results / "real" / f"{name}.csv") as partial:
            measure().assign(**facts).to_csv(partial, index=False, float_format="%.4f")
        return pd.read_csv(run.results / "real" / f"{name}.csv")
    if not (FOLDER / f"{name}.csv").is_file():
        raise PacxError(
            f"{FOLDER / f'{name}.csv'} is missing. Work in a checkout of the book's repository, or "
            "measure it: pacx run --profile real --only 14"
        )
    return pd.read_csv(FOLDER / f"{name}.csv")
