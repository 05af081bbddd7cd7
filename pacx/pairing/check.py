"""Is a data set on this disk what the readers expect, and would it give honest numbers?"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from os.path import isfile  # False for names that no disk can hold: `Path.is_file` raises
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from pacx.constants import ECG_DIAGNOSES, LABS, LEADS_MIMIC, SHIFTED
from pacx.data.datasets import DATASETS, own, read_folder
from pacx.data.datasets.symile_mimic import SECONDS, open_split, to_grey
from pacx.data.ecg_quality import lead_faults
from pacx.data.images import read_image, read_mask
from pacx.data.table import SPLITS, TERMS, Dataset, Terms
from pacx.errors import PacxError
from pacx.files import new_file
from pacx.pairing.check_ecgs import check_archive, describe_faults

TILE, COLUMNS, TILES = 128, 8, 24  # of the montage
#: Splits that must hold patients, where that is not all three.
NEEDED = {"pretraining": ("train", "val")}


@dataclass
class Check:
    """What `check_dataset` found.

    Attributes:
        name: Data set.
        root: Its folder.
        terms: Under which it is given out.
        splits: One row a split: `split`, `images`, `patients`.
        prevalence: One row a label and split: `label`, `split`, `positive`, `known`, `share`. For
            Symile-MIMIC a label is a blood test, and positive means measured.
        problems: What would spoil a result.
        notes: What a reader should know.
        tiles: Some images (H, W) uint8, for the montage.
    """

    name: str
    root: Path
    terms: Terms
    splits: pd.DataFrame
    prevalence: pd.DataFrame
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tiles: list[np.ndarray] = field(default_factory=list)

    def __str__(self) -> str:
        paragraphs = [f"{self.name} in {self.root}", self.splits.to_string(index=False)]
        if not self.prevalence.empty:
            shares = self.prevalence.pivot(index="label", columns="split", values="share")
            shares = shares.reindex(
                index=self.prevalence["label"].unique(),
                columns=[s for s in (*SPLITS, SHIFTED) if s in shares],
            )
            what = "Share measured" if self.name == "symile-mimic" else "Share positive"
            shares = shares.rename_axis(index=None, columns=None)
            paragraphs.append(
                f"{what}\n" + shares.to_string(float_format="{:.3f}".format, na_rep="-")
            )
        paragraphs += [f"note: {note}" for note in self.notes]
        paragraphs += [f"PROBLEM: {problem}" for problem in self.problems]
        paragraphs.append(f"{len(self.problems)} problem(s) found.")
        # Names of files may hold bytes that are not UTF-8, which cannot be printed.
        return "\n\n".join(paragraphs).encode(errors="backslashreplace").decode()

    def save_montage(self, path: Path) -> None:
        """Write up to 24 images, spread over the data set, as one PNG."""
        rows = -(-len(self.tiles) // COLUMNS)
        sheet = Image.new("L", (COLUMNS * TILE, rows * TILE))
        for i, tile in enumerate(self.tiles):
            place = (i % COLUMNS * TILE, i // COLUMNS * TILE)
            sheet.paste(Image.fromarray(tile).resize((TILE, TILE)), place)
        with new_file(path) as partial:
            sheet.save(partial, "PNG")


def check_dataset(name: str, root: Path, most: int | None = None) -> Check:
    """Look for everything that would spoil a result.

    Every file is looked for. Decoded are all images and masks, or `most` of them, evenly spread.

    Args:
        name: One of `pacx.data.datasets.DATASETS`, `ecg-archive`, or one of the reader's own.
        root: Folder of all data sets, or the data set's own.
        most: Images to decode.

    Raises:
        PacxError: The data set is unknown, or its tables cannot be read at all.
    """
    folder = root / name if (root / name).is_dir() else root
    known = (*DATASETS, "ecg-archive")
    if name not in known and not own.is_own(folder):
        raise PacxError(
            f"There is no data set '{name}'. Choose one of {', '.join(known)}, or describe your "
            f"own in {folder / own.ABOUT}."
        )
    if not folder.is_dir():
        raise PacxError(f"{folder} is missing. Give the folder of {name}, or the one above it.")
    if name == "symile-mimic":
        return _check_pairs(folder)
    if name == "ecg-archive":
        return _check_archive(folder)
    if name in DATASETS:
        return _check_images(read_folder(name, folder), most)
    return _check_own(folder, most)


def _check_own(root: Path, most: int | None) -> Check:
    """Check `table.csv` and `pairs.csv`, those that are there, as one."""
    about, checks = own.read_about(root), {}
    if (root / own.TABLE).is_file() or not (root / own.PAIRS).is_file():
        checks[own.TABLE] = _check_images(own.read(root), most)
    if (root / own.PAIRS).is_file():
        table = own.read_pairs(root)
        labs = [f"{lab} ({unit}), measured" for lab, unit in about.labs.items()]
        table[labs] = table[list(about.labs)].notna().astype(float)
        pairs = Dataset(
            about.name, "pretraining", tuple(labs), table, root, about.terms, about.hospital
        )
        checks[own.PAIRS] = check = _check_images(pairs, most, ("train", "test"))
        if "ecg" in table:
            _check_ecgs(check, table["ecg"], most)
    notes = [f"{key}: {value}" for key in ("licence", "citation") if (value := getattr(about, key))]
    return replace(
        next(iter(checks.values())),
        splits=pd.concat([c.splits.assign(table=file) for file, c in checks.items()]),
        prevalence=pd.concat([c.prevalence for c in checks.values()]),
        problems=[f"{file}: {p}" for file, c in checks.items() for p in c.problems],
        notes=[f"{file}: {n}" for file, c in checks.items() for n in c.notes] + notes,
    )


def _check_ecgs(check: Check, records: pd.Series, most: int | None) -> None:
    rows = np.unique(np.linspace(0, len(records) - 1, most or len(records)).astype(int))
    bad = []
    for line, name in tqdm(records.iloc[rows].items(), "read ECGs", len(rows), leave=False):
        path = check.root / name
        try:
            own.read_record(path)
        except PacxError as error:
            bad.append(str(error).replace(str(path), f"that of row {line}"))
    if bad:
        check.problems.append(f"{len(bad)} ECGs cannot be read, such as {bad[0]}")
    check.notes.append(f"{len(rows)} of {len(records)} ECGs were read.")


def _check_images(
    dataset: Dataset, most: int | None, needed: tuple[str, ...] | None = None
) -> Check:
    table = dataset.table
    check = Check(dataset.name, dataset.root, dataset.terms, _count(table), _prevalence(dataset))
    _check_splits(check, table, needed or NEEDED.get(dataset.task, SPLITS))
    _check_labels(check, dataset)
    for column in [c for c in ("image", "mask") if c in table]:
        exists = np.array([isfile(dataset.root / path) for path in table[column]])
        if exists.all():
            check.notes.append(f"All {len(exists)} {column}s are there.")
        else:
            example = _example(check, table[column][~exists].iloc[:1])
            check.problems.append(
                f"{(~exists).sum()} of {len(exists)} {column}s are missing, such as {example}."
            )
        table = table[exists]
    if copies := int(dataset.table.duplicated().sum()):
        check.problems.append(f"{copies} rows are copies of others.")
    _check_listed_twice(check, dataset)
    _check_duplicates(check, dataset.root, table)
    _decode(check, dataset.root, table, most)
    return check


def _decode(check: Check, root: Path, table: pd.DataFrame, most: int | None) -> None:
    rows = table.index.to_numpy()
    if most is not None and most < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    shown = set(rows[np.linspace(0, len(rows) - 1, min(TILES, len(rows))).astype(int)].tolist())
    files = table.to_dict("index")  # threads must not share a data frame's lazy index
    broken, blank, shapes, empty = [], [], [], []  # rows; appending is safe between threads

    def look(i: int) -> np.ndarray | None:
        try:
            image = read_image(root / files[i]["image"])
            if "mask" in table:
                mask = read_mask(root / files[i]["mask"])
                if not mask.any():
                    empty.append(i)
                if mask.shape != image.shape:
                    shapes.append(i)
        except PacxError as error:
            (blank if "shows nothing" in str(error) else broken).append(i)
            return None
        return image if i in shown else None

    with ThreadPoolExecutor() as pool:
        images = tqdm(pool.map(look, rows.tolist()), "decode", len(rows), leave=False)
        check.tiles = [image for image in images if image is not None]
    masks = " (a mask needs 0 outside and 255 inside)" if "mask" in table else ""
    for places, what in (
        (broken, f"cannot be read{masks}"), (blank, "are of one grey value"),
        (shapes, "are of another shape than their image"),
    ):  # fmt: skip
        if places:
            example = _example(check, table["image"].loc[[min(places)]])
            check.problems.append(f"{len(places)} images or masks {what}, such as {example}.")
    if empty and len(empty) == len(rows):
        check.problems.append("All masks are empty.")
    elif empty:
        check.notes.append(f"{len(empty)} masks are empty.")
    check.notes.append(f"{len(rows)} of {len(table)} images were decoded.")


def _check_archive(root: Path) -> Check:
    diagnoses, problems = check_archive(root)
    count = len(diagnoses)
    splits = pd.DataFrame({"split": ["train"], "ECGs": count})
    share = diagnoses.mean(axis=0)
    prevalence = pd.DataFrame({"label": ECG_DIAGNOSES.values(), "split": "train", "share": share})
    prevalence = prevalence.assign(positive=diagnoses.sum(axis=0).astype(int), known=count)
    return Check("ecg-archive", root, TERMS["ecg-archive"], splits, prevalence, problems)


def _check_pairs(root: Path) -> Check:
    tables, measured, problems, tiles = [], [], [], []
    for split in SPLITS:
        try:
            stored = open_split(root, split)
        except PacxError as error:
            problems.append(str(error))
            continue
        tables.append(stored.table.assign(split=split))
        measured += [
            (f"{lab.itemid} {lab.name}", split, int(count), len(stored.observed), share)
            for lab, count, share in zip(
                LABS, stored.observed.sum(axis=0), stored.observed.mean(axis=0), strict=True
            )
        ]
        rows, faults = stored.rows, []
        for row in tqdm(range(0, len(rows), 64), f"read {split}", leave=False):
            block = rows[row : row + 64]
            for array, what in ((stored.cxr, "cxr"), (stored.ecg, "ecg")):
                values = np.asarray(array[block])
                flat = values.reshape(len(block), -1)
                for bad, how in (
                    (~np.isfinite(flat).all(axis=1), "hold values that are not finite"),
                    (flat.min(axis=1) == flat.max(axis=1), "hold one value only"),
                ):
                    if bad.any():
                        problems.append(
                            f"{what}_{split}.npy: {bad.sum()} rows {how}, such as {block[bad][0]}."
                        )
            signals, hz = np.asarray(stored.ecg[block, 0]), stored.ecg.shape[2] / SECONDS
            faults.append(lead_faults(signals.transpose(0, 2, 1), hz))
        problems += describe_faults(np.concatenate(faults), f"ecg_{split}.npy", rows, LEADS_MIMIC)
        for row in rows[np.linspace(0, len(rows) - 1, min(TILES // 3, len(rows))).astype(int)]:
            tiles.append(to_grey(np.array(stored.cxr[row : row + 1, 0]), TILE)[0])
    if not tables:
        raise PacxError(" ".join(problems))
    table = pd.concat(tables, ignore_index=True)
    columns = ["label", "split", "positive", "known", "share"]
    check = Check(
        "symile-mimic",
        root,
        TERMS["symile-mimic"],
        _count(table),
        pd.DataFrame(measured, columns=columns),
    )
    check.problems, check.tiles = problems, tiles
    _check_splits(check, table, SPLITS)
    if twice := int(table["study"].duplicated().sum()):
        check.problems.append(f"{twice} admissions occur twice.")
    return check


def _example(check: Check, file: pd.Series) -> str:
    """One file's name; only its row in the reader's table where names may tell patients."""
    if check.terms == "open":
        return file.item()
    return f"that of row {file.index.item()} of the table"


def _count(table: pd.DataFrame) -> pd.DataFrame:
    groups = table.groupby("split")["patient"]
    counts = pd.DataFrame({"images": groups.size(), "patients": groups.nunique()})
    return counts.reindex([s for s in (*SPLITS, SHIFTED) if s in counts.index]).reset_index()


def _prevalence(dataset: Dataset) -> pd.DataFrame:
    labels = dataset.table.melt("split", list(dataset.labels), "label", "value").dropna(
        subset="value"
    )
    values = labels.groupby(["label", "split"])["value"]
    table = values.agg(positive="sum", known="size", share="mean")
    order = pd.MultiIndex.from_product(
        [dataset.labels, (*SPLITS, SHIFTED)], names=table.index.names
    )
    table = table.reindex(order).dropna(subset="known").reset_index()
    return table.astype({"positive": int, "known": int})


def _check_splits(check: Check, table: pd.DataFrame, needed: tuple[str, ...]) -> None:
    for split in needed:
        if not (table["split"] == split).any():
            check.problems.append(f"Split '{split}' is empty.")
    splits = table.groupby("patient")["split"].nunique()
    if twice := int((splits > 1).sum()):
        check.problems.append(f"{twice} patients are in more than one split.")
    else:
        check.notes.append("No patient is in two splits.")
    if (table["patient"] == table["study"]).all():
        check.notes.append("The data set names no patients: each image counts as one.")


def _check_labels(check: Check, dataset: Dataset) -> None:
    table = check.prevalence
    one_sided = table[(table["positive"] == 0) | (table["positive"] == table["known"])]
    if dataset.task == "binary":
        for _, row in one_sided.iterrows():
            check.problems.append(f"'{row['label']}' has one class only in split '{row['split']}'.")
    elif dataset.task in ("multilabel", "multiclass"):
        for split, labels in one_sided.groupby("split")["label"]:
            left_out = " A macro average leaves them out." if split == "test" else ""
            check.notes.append(f"One class only in split '{split}': {', '.join(labels)}.{left_out}")
        if (one_sided.groupby("split").size() == len(dataset.labels)).any():
            check.problems.append("A split has no label with both classes.")


def _check_listed_twice(check: Check, dataset: Dataset) -> None:
    """One image in several rows: of different people or splits, or with opposite labels."""
    several = dataset.table.groupby("image")[["patient", "split", *dataset.labels]].nunique() > 1
    for columns, what in (
        (["patient"], "listed under more than one patient"),
        (["split"], "listed in more than one split"),
        (list(dataset.labels), "listed twice with opposite labels"),
    ):
        images = several.index[several[columns].any(axis=1)]
        if len(images):
            rows = dataset.table["image"][dataset.table["image"] == images[0]]
            example = _example(check, rows.iloc[:1])
            check.problems.append(f"{len(images)} images are {what}, such as {example}.")


def _check_duplicates(check: Check, root: Path, table: pd.DataFrame) -> None:
    """Files of the same bytes in two splits; only files of equal size need to be read."""
    files = table[["image", "split"]].drop_duplicates("image")
    files = files.assign(size=[(root / image).stat().st_size for image in files["image"]])
    suspects = files[files.groupby("size")["split"].transform("nunique") > 1]
    hashed = tqdm(suspects["image"], "compare files", leave=False)
    digests = [hashlib.sha256((root / image).read_bytes()).digest() for image in hashed]
    groups = suspects.assign(digest=digests).groupby("digest")
    copies = [group for _, group in groups if group["split"].nunique() > 1]
    if copies:
        check.problems.append(
            f"{len(copies)} images are in more than one split under different names, such as "
            f"{_example(check, copies[0]['image'].iloc[:1])}."
        )
