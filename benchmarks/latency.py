"""PyTorch against ONNX Runtime on an exported encoder, side by side in one run.

Prints, for each runtime and precision and for batches of 1 and 16 images: milliseconds a batch
(median and best of `--repeats`), images a second, and how far the CLS token is from PyTorch's.
The ways take turns, so that a busy moment slows all of them. All get the same number of threads.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from _measure import write_report

from pacx.models.encoder import build_encoder
from pacx.profile import load_profile
from pacx.share.export import ONNX, export_onnx, load_exported

BATCHES = (1, 16)


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, help="folder from `pacx export`, else untrained")
    parser.add_argument("--profile", default="paper", help="shape of the untrained encoder")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    report = {
        "onnxruntime": onnxruntime.__version__,
        "threads": options.threads,
        "repeats": options.repeats,
    }
    with tempfile.TemporaryDirectory() as folder:
        if options.encoder:
            encoder = load_exported(options.encoder)
        else:
            torch.manual_seed(0)  # weights do not change how long it takes
            encoder = build_encoder(**load_profile(options.profile).vit.model_dump()).eval()
        export_onnx(encoder, folder)
        report["encoder"] = {
            "width": encoder.embed_dim,
            "depth": len(encoder.blocks),
            "image_size": encoder.patch_embed.img_size[0],
            "patches": encoder.patch_embed.num_patches,
            "parameters": sum(p.numel() for p in encoder.parameters()),
        }
        ways = {"PyTorch fp32": in_torch(encoder)}
        for precision, file in ONNX.items():
            path = Path(folder) / file
            ways[f"ONNX Runtime {precision}"] = in_onnx(path, options.threads)
        size = encoder.patch_embed.img_size
        report["rows"] = [row for n in BATCHES for row in compare(ways, n, size, options.repeats)]
    report["ratios"] = [
        {
            "what": f"{row['runtime']}, batch of {row['batch']}: times as fast as PyTorch fp32",
            "value": row["times_as_fast"],
            "target": None,
        }
        for row in report["rows"]
        if row["runtime"] != "PyTorch fp32"
    ]
    write_report(report, options.json, load)


def compare(
    ways: dict[str, Callable[[np.ndarray], np.ndarray]], batch: int, size: tuple, repeats: int
) -> list[dict]:
    """One row a way: CLS tokens of the same (N, 3, H, W) random pixels, again and again."""
    pixels = np.random.default_rng(0).normal(size=(batch, 3, *size)).astype(np.float32)
    answers = {name: way(pixels) for name, way in ways.items()}  # also warms up
    seconds = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way(pixels)
            seconds[name].append(time.perf_counter() - started)
    expected, base = answers["PyTorch fp32"], statistics.median(seconds["PyTorch fp32"])
    return [
        {
            "runtime": name,
            "batch": batch,
            "ms": round(1000 * statistics.median(seconds[name]), 2),
            "best_ms": round(1000 * min(seconds[name]), 2),
            "images_per_second": round(batch / statistics.median(seconds[name]), 1),
            "times_as_fast": base / statistics.median(seconds[name]),
            "largest_difference": float(np.abs(answers[name] - expected).max()),
        }
        for name in ways
    ]


def in_torch(encoder: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """Pixels (N, 3, H, W) to CLS tokens (N, D) in PyTorch."""

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> np.ndarray:
        return encoder(torch.from_numpy(pixels)).numpy()

    return run


def in_onnx(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The same in ONNX Runtime."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    # Threads that wait by spinning would slow the others' turns.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["cls"], {"pixel_values": pixels})[0]


if __name__ == "__main__":
    main()
