"""Credentialed data stays home: what a page may show, what is kept beside it, what is refused.

Phantoms and open data may be shown. Everything else of single patients goes to the run's `private`
folder, and a site that holds any of it is not published. The rule is that of PhysioNet's data use
agreement; the smallest number of patients that may be told is our choice, see the book's page on
data.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from pacx.data.datasets import load_dataset, paired_patients, terms_of
from pacx.data.table import SPLITS
from pacx.errors import PacxError
from pacx.files import new_file
from pacx.run import Run

#: Counts of fewer patients are not told, nor statistics over fewer.
FEWEST = 10
#: Tag of a cell whose pictures may be shown: made up, published, or passed by `show_or_withhold`.
PUBLIC = "public"

_ID_COLUMNS = {
    "subject_id", "hadm_id", "stay_id", "study_id", "dicom_id", "patient_id", "patient",
}  # fmt: skip
#: Columns of the readers' tables that name a patient or a file.
_NAMING = ("patient", "study", "hadm_id", "image", "mask", "ecg", "cxr_path", "ecg_path")
_WORD = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
#: What may be an identifier in a longer word or a path.
_PART = re.compile(r"(?<![a-z0-9])(?:[a-z]+\d{5,}|\d{7,})(?![a-z0-9])")
#: Written before a number by MIMIC, or by us; `n` is of a line break in JSON.
_BEFORE_ID = re.compile(r"^(?:[nps]|id|subject|patient|study)(?=\d{7})")
#: A result, such as 0.81234567; identifiers are longer before the point, as in 10000032.0.
_DECIMAL = re.compile(r"(?<![\w.])\d{1,3}\.\d+(?!\w|[.-]\w)")
_HEADER = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")
_DATA_URI = re.compile(r"data:image/(?!svg)[\w.+-]+(?:;[\w=-]+)*;base64,([\w+/=]+)")
_RASTERS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".dcm", ".npy")
_FONTS = (".woff", ".woff2", ".ttf", ".eot", ".ico")


def show_or_withhold(run: Run, figure: Figure, name: str, *datasets: str) -> None:
    """Let a figure of patients be shown, or move it to the run's `private` folder.

    Args:
        run: Phantoms may be shown.
        figure: It is closed when it may not be shown.
        name: Of the PNG file.
        *datasets: Whose patients it shows; all must be open to be shown.
    """
    if run.is_phantom or all(terms_of(dataset, run.data_root) == "open" for dataset in datasets):
        return
    with new_file(run.private / f"{name}.png") as partial:
        figure.savefig(partial, format="png", dpi=150)
    plt.close(figure)
    display(Markdown(f"*It shows patients, so it is not on this page: `private/{name}.png`.*"))


def suppress_small(
    run: Run,
    table: pd.DataFrame,
    *counts: str,
    of: str | None = None,
    derived: Iterable[str] = (),
) -> pd.DataFrame:
    """Blank counts of one to nine patients, and those that leave as few over.

    Phantoms are told as they are.

    Args:
        run: The run.
        table: Aggregates.
        *counts: Columns that count patients, images or admissions.
        of: Column of the whole that the counts are parts of: 97 of 100 tells of three others.
        derived: Columns that would give such a count away, blanked in the same rows.
    """
    if run.is_phantom:
        return table
    small = table[list(counts)].apply(lambda c: pd.to_numeric(c).between(1, FEWEST - 1))
    if of is not None:
        small |= table[list(counts)].apply(lambda c: (table[of] - c).between(1, FEWEST - 1))
    for column in derived:
        small[column] = small[list(counts)].any(axis=1)
    return table.mask(small.reindex(columns=table.columns, fill_value=False))


def inspect_site(run: Run, html: Path, book: Path, log: Path) -> None:
    """Refuse a built site, or its log, that holds anything of a single patient.

    Looked for are identifiers and file names of the run's data sets that are not open, the path of
    the data, columns of identifiers, and pictures that come neither from the prose nor from a cell
    tagged `public`. Numbers of a patient without a name are not recognised: chapters must not print
    any.

    Args:
        run: A run on real data; a run on phantoms passes unseen.
        html: The site.
        book: What it was built from: prose in `book/`, chapters in `notebooks/`.
        log: What the build said.

    Raises:
        PacxError: Which pages hold what, without repeating it.
    """
    if run.is_phantom:
        return
    prose = [f for f in (book / "book").rglob("*.md") if "_generated" not in f.parts]
    published = [*prose, *Path(__file__).parent.rglob("*.py")]
    names = _identifiers(run).difference(
        *(_words(file.read_text(encoding="utf-8")) for file in published)
    )
    pictures = set(_digests((book / "book").rglob("*")))
    for notebook in sorted((book / "notebooks").glob("*.ipynb")):
        pictures |= {_digest(p) for p in _pictures(notebook, PUBLIC)}
    root = str(run.data_root.resolve())
    found = []
    for file in sorted({log, *html.rglob("*")}):
        relative = file.relative_to(html) if html in file.parents else file.name
        if not file.is_file() or str(relative).startswith("_static") or file.suffix in _FONTS:
            continue
        content = file.read_bytes()
        if file.suffix.lower() in _RASTERS:
            kinds = [] if _digest(content) in pictures else ["a picture"]
        else:
            kinds = list(_kinds(file, content, names, root, pictures))
        found += [f"{relative}: {kind}" for kind in kinds]
    if found:
        raise PacxError(
            "The site would publish patients, so it was not built:\n  "
            + "\n  ".join(found[:20])
            + f"\nOf {len(found)} places. Take the output out of the chapter, or show it with "
            "pacx.book.privacy.show_or_withhold."
        )


def _kinds(
    file: Path, content: bytes, names: set[str], root: str, pictures: set[str]
) -> Iterator[str]:
    text = content.decode("utf-8", errors="replace")
    if not names.isdisjoint(_words(text)):
        yield "an identifier or a file name of a patient"
    if root in text:
        yield "the path of the data"
    header = text.partition("\n")[0].split(",") if file.suffix == ".csv" else []
    cells = (_TAG.sub("", cell) for cell in [*header, *_HEADER.findall(text)])
    if not _ID_COLUMNS.isdisjoint("_".join(re.findall(r"\w+", cell.lower())) for cell in cells):
        yield "a column of identifiers"
    if file.suffix == ".ipynb":
        inside = _pictures(file)
    elif file.suffix == ".svg":
        inside = [content] if _is_raster(text) else []
    else:
        inside = map(base64.b64decode, _DATA_URI.findall(text))
    if any(_digest(picture) not in pictures for picture in inside):
        yield "a picture"


def _identifiers(run: Run) -> set[str]:
    """Words in the tables of data sets that are not open that belong to one patient only."""
    found: set[str] = set()
    profile, root = run.profile, run.data_root
    named = {profile.pretraining, profile.pairs, *profile.benchmarks}
    hidden = {n for n in named if (root / n).is_dir() and terms_of(n, root) != "open"}
    tables = [load_dataset(name, root).table for name in hidden - {profile.pairs}]
    if profile.pairs in hidden:
        tables.append(pd.concat([paired_patients(run, split) for split in SPLITS]))
        if profile.pairs in (profile.pretraining, *profile.benchmarks):  # one folder for both
            tables.append(load_dataset(profile.pairs, root).table)
    for table in tables:
        columns = table.columns.intersection(_NAMING)
        words = table[columns].astype(str).agg(" ".join, axis=1).map(_words)
        words = words.to_frame("word").assign(patient=table["patient"]).explode("word")
        words = words.drop_duplicates().drop_duplicates("word", keep=False)["word"]
        found |= set(words[(words.str.len() >= 5) & words.str.contains(r"\d")])
    return found


def _words(text: str) -> set[str]:
    """Words, and what may be an identifier in them: of `p10000032_s1.png` also `10000032`."""
    text = _DECIMAL.sub(" ", text.lower())
    parts = (_BEFORE_ID.sub("", part) for part in _PART.findall(text))
    return {*_WORD.findall(text), *parts}


def _digests(files: Iterable[Path]) -> Iterator[str]:
    return (_digest(file.read_bytes()) for file in files if file.is_file())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content.strip()).hexdigest()


def _pictures(notebook: Path, tag: str | None = None) -> list[bytes]:
    """Raster pictures among the outputs of a notebook; with a tag, of the cells that carry it."""
    import nbformat  # comes with the extra `book`; chapters import this module without it

    cells = nbformat.read(notebook, as_version=4).cells
    found = []
    for cell in cells:
        if tag is not None and tag not in cell.metadata.get("tags", []):
            continue
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if kind == "image/svg+xml" and _is_raster(data):
                    found.append(data.encode())
                elif kind.startswith("image/") and kind != "image/svg+xml":
                    found.append(base64.b64decode(data))
    return found


def _is_raster(svg: str) -> bool:
    return "<image" in svg
