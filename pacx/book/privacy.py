"""Credentialed data stays home: what a page may show, what is kept beside it, what is refused.

A chapter on data that are not open keeps what its code declares to be aggregates, and nothing else.
The rule is that of PhysioNet's data use agreement; the smallest number of patients that may be told
is our choice, see the book's page on data.
"""

import base64
import hashlib
import html
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
from PIL import Image

from pacx.data.datasets import load_dataset, paired_patients, terms_of
from pacx.data.table import SPLITS
from pacx.errors import PacxError
from pacx.figures.style import AGGREGATE, as_aggregate
from pacx.run import Run

#: Counts of fewer patients are not told, nor statistics over fewer.
FEWEST = 10

#: What of a declared output is kept.
_KINDS = ("text/html", "text/markdown", "text/latex", "image/svg+xml", "image/png")
#: Where an SVG says more than it shows.
_SVG_WORDS = re.compile(r"<!--.*?-->|<(metadata|title|desc)\b.*?</\1\s*>", re.DOTALL)
#: Columns of the readers' tables that name a patient or a file.
_NAMING = ("patient", "study", "hadm_id", "image", "mask", "ecg", "cxr_path", "ecg_path")
#: None of these are the digits of a fraction.
_WORD = re.compile(r"(?<![a-z\d])(?<!\d\.)[a-z\d]+(?:[-_][a-z\d]+)*")
#: What may be an identifier in a longer word or a path, but not in a hash.
_PART = re.compile(r"[a-z]+\d{5,}(?![a-z\d])")
_NUMBER = re.compile(r"(?<!\d)(?<!\d\.)\d{7,}(?![a-z\d])")
#: Characters without a width.
_UNSEEN = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def declare(
    run: Run,
    thing: Any,
    *datasets: str,
    counts: Iterable[str] = (),
    of: str | None = None,
    derived: Iterable[str] = (),
) -> Any:
    """Declare that something may be shown; in a chapter on real data all else is withheld.

    That is what no single patient can be seen in, or patients of open data sets. Figures of
    results, `show` and `say` declare themselves. Phantoms are told as they are.

    Args:
        run: The run.
        thing: A figure, a text, or a table of aggregates, whose counts of one to nine are blanked.
        *datasets: Whose patients it shows: where one is not open, nothing is declared.
        counts: Columns of a table that count patients, images or admissions.
        of: Column of the whole that the counts are parts of: 97 of 100 tells of three others.
        derived: Columns that would give such a count away, blanked in the same rows.
    """
    if not run.is_phantom and any(terms_of(name, run.data_root) != "open" for name in datasets):
        return thing
    if isinstance(thing, pd.DataFrame) and not run.is_phantom:
        counted = thing[list(counts)].apply(pd.to_numeric)
        small = counted.apply(lambda c: c.between(1, FEWEST - 1))
        if of is not None:
            small |= counted.apply(lambda c: (thing[of] - c).between(1, FEWEST - 1))
        for column in derived:
            small[column] = small[list(counts)].any(axis=1)
        thing = thing.mask(small.reindex(columns=thing.columns, fill_value=False))
    return as_aggregate(thing)


def is_declared(table: pd.DataFrame) -> bool:
    """Whether a result table may be downloaded: estimates with intervals, and what was declared."""
    return table.attrs.get(AGGREGATE, False) or {"value", "low", "high"} <= set(table.columns)


def withhold(notebook: Any, private: str) -> None:
    """Take out of an executed notebook what its code has not declared, pictures' metadata included.

    A second time changes nothing.

    Args:
        notebook: As `nbformat` reads it; changed in place.
        private: Where the whole notebook lies, for the line that stands in place of an output.
    """
    from nbformat.v4 import new_output  # of the extra `book`: chapters do without

    told = {"text/markdown": f"*Withheld: not declared an aggregate. The copy is `{private}`.*"}
    for key in set(notebook.metadata) - {"kernelspec", "language_info", "pacx"}:
        del notebook.metadata[key]
    for cell in notebook.cells:
        cell.pop("attachments", None)
        outputs = cell.get("outputs", [])
        declared = [o for o in outputs if o.get("metadata", {}).get(AGGREGATE)]
        for output in declared:
            output.data = {k: _without_words(k, output.data[k]) for k in _KINDS if k in output.data}
            output.metadata = {AGGREGATE: True}
        if outputs:
            # Pages never show stderr, where progress is told: no line stands in its place.
            withheld = any(o not in declared and o.get("name") != "stderr" for o in outputs)
            line = new_output("display_data", told, metadata={AGGREGATE: True})
            cell.outputs = declared + [line] * withheld


def inspect_site(run: Run, site: Path, book: Path, log: Path) -> None:
    """Refuse a built site, or its log, that holds anything of a single patient.

    The second net, behind `withhold`. Looked for are identifiers and file names of the run's data
    sets that are not open, however their digits are grouped, the path of the data, and pictures,
    downloads and binary files that come neither from the prose nor from a declared output.

    Args:
        run: A run on real data; a run on phantoms passes unseen.
        site: The built HTML.
        book: What it was built from: prose in `book/`, chapters in `notebooks/`.
        log: What the build said.

    Raises:
        PacxError: Which pages hold what, without repeating it.
    """
    if run.is_phantom:
        return
    prose = [f for f in (book / "book").rglob("*.md") if "_generated" not in f.parts]
    published = [*prose, *Path(__file__).parents[1].rglob("*.py")]  # the site lists our code
    names = _identifiers(run).difference(
        *(_words(file.read_text(encoding="utf-8")) for file in published)
    )
    known, root = _known(book), str(run.data_root.resolve())
    links = [file for file in book.rglob("*") if file.is_symlink()]
    found = ["a link among the prose, to what may be anything"] * bool(links)
    for file in sorted({log, *site.rglob("*")}):
        relative = Path(file.name) if file == log else file.relative_to(site)
        of_theme = relative.parts[0] == "_static" and not (book / "book" / relative).exists()
        if not file.is_file() or of_theme or file.name == "objects.inv":
            continue
        content = file.read_bytes()
        text = f"{relative}\n{content.decode(errors='replace')}"
        whole = relative.parts[0] not in ("_images", "_downloads") and _is_text(content)
        where = "/".join(p if names.isdisjoint(_words(p)) else "…" for p in relative.parts)
        if not names.isdisjoint(_words(text)):
            found.append(f"{where}: an identifier or a file name of a patient")
        if root in text:
            found.append(f"{where}: the path of the data")
        if _digest(content) not in known and (not whole or _has_data_uri(text)):
            found.append(f"{where}: a picture or file that was not declared")
    if found:
        raise PacxError(
            "The site would publish patients, so it was not built:\n  "
            + "\n  ".join(found[:20])
            + f"\nOf {len(found)} places. Take the output out of the chapter, or declare it an "
            "aggregate with pacx.book.privacy.declare."
        )


def _without_words(kind: str, data: str) -> str:
    if kind == "image/svg+xml":
        return _SVG_WORDS.sub("", data)
    if kind == "image/png":
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            picture.info.clear()
            picture.save(buffer := io.BytesIO(), "PNG")
        return base64.b64encode(buffer.getvalue()).decode()
    return data


def _known(book: Path) -> set[str]:
    """Digests of what the site may hold besides pages: of the prose, and of declared outputs."""
    import nbformat

    files = [file.read_bytes() for file in (book / "book").rglob("*") if file.is_file()]
    known = [content for content in files if _is_text(content) or _is_picture(content)]
    for notebook in (book / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(notebook, as_version=4).cells:
            for data in (output.get("data", {}) for output in cell.get("outputs", [])):
                known += [data[kind].encode() for kind in data if kind == "image/svg+xml"]
                known += [base64.b64decode(data[kind]) for kind in data if kind == "image/png"]
    return set(map(_digest, known))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content.strip()).hexdigest()


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _is_picture(content: bytes) -> bool:
    try:
        return bool(Image.open(io.BytesIO(content)).format)
    except OSError:
        return False


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
    """Words, and what may be an identifier in them, however it is marked up or its digits grouped.

    Of `p10000032_s1.png` also `10000032`.
    """
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", html.unescape(text))).lower()
    bare = re.sub(r"<[^>]*>", "", text)
    joined = re.sub(r"(?<=\d)[ .,'’_](?=\d{3}(?!\d))", "", bare)
    kinds = (_WORD, _PART, _NUMBER)
    return {word for t in {text, bare, joined} for kind in kinds for word in kind.findall(t)}


def _has_data_uri(text: str) -> bool:
    """Whether a page holds a file within itself, however `data:` is spelt."""
    text = re.sub(r"[\s\\]", "", _UNSEEN.sub("", unquote(html.unescape(text))))
    uri = r"data:[\w.+-]+/[\w.+-]+(?:;[\w=-]+)*,(?:<svg|<\?xml|[\w+/=]{16})"
    return re.search(uri, text, re.IGNORECASE) is not None
