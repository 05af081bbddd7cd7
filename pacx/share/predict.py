"""X-rays in; embeddings, calibrated probabilities, attention overlays and warnings out."""

import csv
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision
from tqdm import tqdm

from pacx.data.dicom import is_dicom
from pacx.data.images import normalise, read_image
from pacx.errors import PacxError, printable
from pacx.evaluation.attention import rollout_of, upsample
from pacx.figures.attention import fades
from pacx.files import create_array, fingerprint, locked, new_file, new_folder
from pacx.models.checkpoints import CONFIG, WEIGHTS
from pacx.models.encoder import encode
from pacx.processes import device
from pacx.share.calibration import load_probe
from pacx.share.export import load_exported
from pacx.share.training_range import RANGE, load_range

TABLE, EMBEDDINGS, OVERLAYS = "predictions.csv", "embeddings.parquet", "overlays"
PROBES = "probes"
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp")
BATCH = 64  # images that are encoded, and written, together
SIDE = 400  # pixels of an overlay's longer side


def predict(
    images: Sequence[str | Path],
    encoder: str | Path,
    out: str | Path,
    *,
    probes: Sequence[str] = (),
    overlay: bool = False,
) -> pd.DataFrame:
    """Embed X-rays and write what is known about each, as it comes.

    Stopped, the same call goes on where it was. On a GPU the encoder computes in bf16.

    Args:
        images: PNG, JPEG, DICOM, TIFF or BMP files, and folders of them. In a folder, DICOM files
            need no suffix. An image that is named twice counts once.
        encoder: Folder that `pacx export` made.
        out: New folder: `predictions.csv`; in the end `embeddings.parquet` (`image`, then D
            columns); and, if wanted, `overlays/`, a PNG an image.
        probes: Names of exported probes.
        overlay: Also draw each image beside itself under the attention rollout.

    Returns:
        The table that was written, one row an image: `image`, `distance` and `limit` of the
        training range (if there is one), `<probe>: <class>` probabilities, read from the CLS token,
        and `warning`, empty where there is none. A file that cannot be read has a warning and
        nothing else. Characters that would command a terminal are escaped, and an apostrophe stands
        before what a spreadsheet would compute.

    Raises:
        PacxError: There is no image, none can be read, the encoder or a probe is missing or wrong,
            or `out` exists and is not from this call.

    Example:
        >>> table = predict(["x-rays"], "encoder", "predictions", probes=["tb"])
    """
    paths, folder, out = _find_images(images), Path(encoder), Path(out).absolute()
    predictor = Predictor(folder, probes)
    parts = [folder / CONFIG, folder / WEIGHTS, folder / RANGE, *_paths_of(folder, probes).values()]
    key = fingerprint(overlay, *map(printable, paths), *(part for part in parts if part.is_file()))
    unfinished = out / f".{key[:24]}.npy"
    with locked(out):
        if not unfinished.is_file():
            with new_folder(out) as partial:
                width = predictor.encoder.embed_dim
                create_array(partial / unfinished.name, np.float32, (len(paths), width))
                if overlay:
                    (partial / OVERLAYS).mkdir()
        _write_rows(paths, predictor, out, unfinished, overlay)
        kinds = {"image": str, "warning": str}
        table = pd.read_csv(out / TABLE, dtype=kinds, keep_default_na=False, na_values=[""])
        table["warning"] = table["warning"].fillna("")
        if not _write_embeddings(table["image"], out / EMBEDDINGS, unfinished):
            shutil.rmtree(out)
            raise PacxError(f"No image can be read, of {len(paths)}. {table['warning'][0]}")
        unfinished.unlink()
    return table


class Predictor:
    """An exported encoder with what it needs to speak about images."""

    def __init__(self, folder: Path, probes: Sequence[str]):
        self.encoder = load_exported(folder)
        width = self.encoder.embed_dim
        self.range = load_range(folder, width)
        files = _paths_of(folder, probes)
        self.probes = {name: load_probe(path, width) for name, path in files.items()}
        near = [] if self.range is None else ["distance", "limit"]
        classes = [f"{name}: {c}" for name, probe in self.probes.items() for c in probe.classes]
        self.columns = [*near, *classes, "warning"]
        self.encoder.to(device())

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[np.ndarray, pd.DataFrame]:
        """CLS tokens (N, D) of images (N, H, W) uint8 of the encoder's size, and a row on each."""
        where = device()
        half = where.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        with torch.autocast(where.type, torch.bfloat16, enabled=half):
            cls, patches = (t.float() for t in encode(self.encoder, normalise(images.to(where))))
        tokens = torch.cat([cls, patches.mean(1)], dim=1).double().cpu().numpy()
        cls = cls.cpu().numpy()
        numbers = [probe.probabilities(cls) for probe in self.probes.values()]
        distance, limit = np.zeros(len(images)), np.inf
        if self.range is not None:
            distance, limit = self.range.distance(tokens), self.range.limit
            numbers = [distance[:, None], np.full((len(images), 1), limit), *numbers]
        table = np.hstack([np.empty((len(images), 0)), *numbers])
        facts = pd.DataFrame(table, columns=self.columns[:-1])
        finite = np.isfinite(tokens).all(1) & np.isfinite(table).all(1)
        facts["warning"] = [_warning(*row, limit) for row in zip(finite, distance, strict=True)]
        return cls, facts

    def attention(self, images: Tensor) -> Tensor:
        """Attention rollout (N, H', W') of images (N, H, W) uint8 of the encoder's size."""
        return rollout_of(self.encoder, normalise(images.to(device()))).cpu()


def _warning(finite: bool, distance: float, limit: float) -> str:
    if not finite:
        return "The numbers are not finite: the encoder's weights are wrong. Trust none of them."
    if distance > limit:
        return (
            f"Far from the training images (distance {distance:.1f}, limit {limit:.1f}): perhaps "
            "no frontal chest X-ray, or of another kind. Do not trust the numbers."
        )
    return ""


def _write_rows(
    paths: Sequence[str], predictor: Predictor, out: Path, embeddings: Path, overlay: bool
) -> None:
    """Batch by batch, after those that are complete; a batch is when its rows are in the table."""
    size = list(predictor.encoder.patch_embed.img_size)

    def read(path: str) -> tuple[Tensor, np.ndarray | None] | str:
        """As in training, squashed to a square; and small, for an overlay. Or why it cannot be."""
        try:
            picture = read_image(path)
            image = vision.resize(torch.from_numpy(np.array(picture))[None], size, antialias=True)
            return image[0], _shrunk(picture) if overlay else None
        except PacxError as error:
            return str(error)
        except Exception as error:  # whatever is wrong with one file shall not end the run
            return f"{path} cannot be read: {error!r}"

    start = _complete_rows(out / TABLE)
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(paths), initial=start, unit="image", disable=None) as bar,
    ):
        steps = range(start, len(paths), BATCH)
        batches = (pool.map(read, paths[step : step + BATCH]) for step in steps)
        ahead = next(batches, None)
        while ahead:  # the next batch is read while this one is encoded
            now, ahead = ahead, next(batches, None)
            answers = list(now)
            names = paths[start : start + len(answers)]
            rows = [row for row, answer in enumerate(answers) if not isinstance(answer, str)]
            table = pd.DataFrame(columns=predictor.columns)
            cls = np.full((len(names), predictor.encoder.embed_dim), np.nan)
            if rows:
                images = torch.stack([answers[row][0] for row in rows])
                cls[rows], table = predictor(images)
                if overlay:
                    files = [out / OVERLAYS / _overlay_name(start + r, names[r]) for r in rows]
                    pictures = [answers[row][1] for row in rows]
                    list(pool.map(_draw, predictor.attention(images), pictures, files))
            # Mapped anew each time: what stays mapped counts as memory.
            np.load(embeddings, mmap_mode="r+")[start : start + len(names)] = cls
            table = table.set_axis(rows).reindex(range(len(names)))
            for row in set(range(len(names))) - set(rows):
                table.loc[row, "warning"] = answers[row]
            table.insert(0, "image", names)
            table[["image", "warning"]] = table[["image", "warning"]].map(_cell)
            table.columns = table.columns.map(_cell)
            with (out / TABLE).open("a", encoding="utf-8", newline="") as file:
                quote = csv.QUOTE_NONNUMERIC
                table.to_csv(file, header=start == 0, index=False, quoting=quote)
            start += len(names)
            bar.update(len(names))


def _complete_rows(table: Path) -> int:
    """How many rows are there in whole batches; what follows them is cut off."""
    if not table.is_file():
        return 0
    with table.open("r+b") as file:
        lines = file.readlines()
        rows = max(0, sum(line.endswith(b"\n") for line in lines) - 1) // BATCH * BATCH
        file.truncate(sum(map(len, lines[: rows + 1])) if rows else 0)
    return rows


def _write_embeddings(names: pd.Series, target: Path, embeddings: Path) -> int:
    """Those that are finite, as Parquet, piece by piece; returns how many."""
    writer, written = None, 0
    with new_file(target) as partial:
        for start in range(0, len(names), 4096):
            values = np.load(embeddings, mmap_mode="r")[start : start + 4096]
            known = np.isfinite(values).all(1)
            frame = pd.DataFrame(values[known]).rename(columns="cls_{:03d}".format)
            frame.insert(0, "image", names[start : start + 4096][known].to_numpy())
            piece = pa.Table.from_pandas(frame, preserve_index=False)
            writer = writer or pq.ParquetWriter(partial, piece.schema)
            writer.write_table(piece)
            written += len(frame)
        writer.close()
    return written


def _cell(text: str) -> str:
    """Text that neither a terminal obeys nor a spreadsheet computes."""
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else text


def _find_images(given: Sequence[str | Path]) -> list[str]:
    paths: list[str] = []
    for path in map(str, map(Path, given)):
        if os.path.isdir(path):
            files = (os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
            paths += sorted(f for f in files if os.path.isfile(f) and _is_image(Path(f)))
        else:
            paths.append(path)
    if not paths:
        raise PacxError(
            f"There is no image in {', '.join(map(str, given))}. Expected DICOM files, or files "
            f"ending in {', '.join(SUFFIXES)}."
        )
    return list({os.path.abspath(path): path for path in paths}.values())


def _is_image(file: Path) -> bool:
    if file.suffix.lower() in SUFFIXES:
        return True
    # A disc's table of contents is DICOM, too, under this name.
    return file.name != "DICOMDIR" and os.access(file, os.R_OK) and is_dicom(file)


def _paths_of(folder: Path, probes: Sequence[str]) -> dict[str, Path]:
    files = {path.stem: path for path in sorted((folder / PROBES).glob("*.safetensors"))}
    if unknown := [name for name in probes if name not in files]:
        raise PacxError(
            f"{folder} has no probe {', '.join(unknown)}. It has: {', '.join(files) or 'none'}."
        )
    return {name: files[name] for name in probes}


def _shrunk(picture: np.ndarray) -> np.ndarray:
    shape = [max(1, round(side * SIDE / max(picture.shape))) for side in picture.shape[::-1]]
    return np.asarray(Image.fromarray(picture).resize(shape, reducing_gap=2))


def _overlay_name(number: int, path: str) -> str:
    stem = "".join(c if c.isprintable() else "_" for c in Path(path).stem)
    return f"{number:05d}-{stem[:60]}.png"  # at most four bytes each: a name has room for 255


def _draw(rollout: Tensor, picture: np.ndarray, file: Path) -> None:
    heat = upsample(rollout[None], picture.shape).numpy()
    shown = fades(picture[None], heat, heat, steps=1)[0]
    pair = np.hstack([np.repeat(picture[..., None], 3, axis=2), shown])
    Image.fromarray(pair).save(file, compress_level=1)
