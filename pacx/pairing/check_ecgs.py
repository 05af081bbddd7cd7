"""The ECGs of a data set: which of them would spoil a teacher or a pair?"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pacx.constants import LEADS_ECGFOUNDER
from pacx.data.datasets.ecg_archive import find_headers, read_diagnoses
from pacx.data.ecg import read_ecg
from pacx.data.ecg_quality import FAULTS, check_limb_leads, lead_faults, too_few_leads
from pacx.errors import PacxError
from pacx.files import fingerprint


def describe_faults(
    faults: NDArray[np.uint8], where: str, names: Sequence[object], leads: Sequence[str]
) -> list[str]:
    """One problem for each kind of fault of (N, 12), see `pacx.data.ecg_quality.lead_faults`."""
    problems = []
    for code, fault in list(enumerate(FAULTS))[1:]:
        has = (faults == code).any(axis=1)
        if has.any():
            first = int(has.argmax())
            which = ", ".join(np.array(leads)[faults[first] == code])
            problems.append(
                f"{where}: {has.sum()} ECGs have a {fault} lead, such as {names[first]} ({which})."
            )
    if dead := int(too_few_leads(faults).sum()):
        problems.append(f"{where}: {dead} ECGs have six flat leads or more and are of no use.")
    return problems


class _Record(NamedTuple):
    name: str
    diagnoses: NDArray[np.float32]
    faults: NDArray[np.uint8]
    swapped: bool
    content: str
    shape: str


def check_archive(root: Path) -> tuple[NDArray[np.float32], list[str]]:
    """Read all records in the layout of `pacx.data.datasets.ecg_archive`.

    Returns:
        (N, K) diagnoses of the readable ones, and problems.

    Raises:
        PacxError: There is no record that can be read, or a header's suffix is in upper case.
    """
    headers = find_headers(root)
    with ThreadPoolExecutor() as pool:
        read = list(tqdm(pool.map(_read, headers), "read ECGs", len(headers), leave=False))
    records = [record for record in read if isinstance(record, _Record)]
    unreadable = [error for error in read if not isinstance(error, _Record)]
    if not records:
        raise PacxError(f"None of {len(headers)} ECGs can be read: {unreadable[0]}")
    problems = [f"{len(unreadable)} ECGs cannot be read: {unreadable[0]}"] if unreadable else []
    usual = Counter(record.shape for record in records).most_common(1)[0][0]
    first_with = {record.content: record.name for record in reversed(records)}
    for bad, how in (
        ([r.name for r in records if r.swapped], "have limb leads that contradict each other"),
        ([r.name for r in records if r.shape != usual], f"are not of {usual}"),
        ([r.name for r in records if first_with[r.content] != r.name], "are copies of another"),
    ):
        if bad:
            problems.append(f"{len(bad)} ECGs {how}, such as {bad[0]}.")
    names, faults = [r.name for r in records], np.stack([r.faults for r in records])
    problems += describe_faults(faults, root.name, names, LEADS_ECGFOUNDER)
    return np.stack([r.diagnoses for r in records]), problems


def _read(header: Path) -> _Record | PacxError:
    try:
        ecg, diagnoses = read_ecg(header), read_diagnoses(header)
    except PacxError as error:
        return error
    try:
        check_limb_leads(ecg.signal, ecg.leads)
        swapped = False
    except PacxError:
        swapped = True
    faults, content = lead_faults(ecg.signal, ecg.hz), fingerprint(ecg.signal)
    shape = f"{ecg.signal.shape[1]} samples at {ecg.hz:g} Hz"
    return _Record(header.stem, diagnoses, faults, swapped, content, shape)
