"""One short reader a data set; all return the same validated table."""

from collections.abc import Callable
from pathlib import Path

from pacx.data.datasets import chestx6, chexchonet, chexpert, covid_qu_ex, medmod, phantom_truth
from pacx.data.table import Dataset
from pacx.errors import PacxError

_READERS: dict[str, Callable[[Path], Dataset]] = {
    "chexpert": chexpert.read,
    "chexchonet": chexchonet.read,
    "chestx6": chestx6.read,
    "medmod": medmod.read,
    "covid-qu-ex": covid_qu_ex.read,
    "phantom-truth": phantom_truth.read,
}


def load_dataset(name: str, data_root: Path) -> Dataset:
    """Read a data set from `data_root/<name>`.

    Raises:
        PacxError: The name is unknown, the folder is missing, or its content is not as documented.
    """
    if name not in _READERS:
        raise PacxError(f"There is no data set '{name}'. Choose one of {', '.join(_READERS)}.")
    root = data_root / name
    if not root.is_dir():
        raise PacxError(
            f"{root} is missing. Put the data set there, or make phantoms: "
            f"pacx phantom --out {data_root}"
        )
    return _READERS[name](root)
