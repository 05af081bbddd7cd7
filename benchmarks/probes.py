"""Linear probes: heads trained together on cached features against the usual loop.

The usual loop sends every image, mirrored or not, through the frozen encoder in every epoch, for
one head after the other. Ours encodes each image once plain and once mirrored, then trains all
heads as one batched problem. Same phantoms, same untrained encoder, same settings. The head on all
labels is trained to the end in both ways and their AUROCs compared; for the other heads the loop's
time is projected from the image passes that they need.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _measure import peak_memory, write_report

from pacx.data.images import normalise
from pacx.evaluation.probe import draw_subsets, fit_probes
from pacx.evaluation.statistics import macro_auroc
from pacx.models.encoder import build_encoder, encode
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients, task_labels
from pacx.profile import ProbeSettings, load_profile

FRACTIONS = (0.01, 0.1, 1.0)


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=3000, help="images")
    parser.add_argument("--val", type=int, default=500, help="images")
    parser.add_argument("--draws", type=int, default=5, help="heads of each fraction below 1")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--profile", default="demo", help="shape of the untrained encoder")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    settings = ProbeSettings(
        epochs=options.epochs, batch_size=512, learning_rate=3e-3, weight_decay=0.01, flip=True
    )
    torch.manual_seed(0)
    vit = load_profile(options.profile).vit
    encoder = build_encoder(**vit.model_dump()).eval().requires_grad_(False)
    patients = sample_patients(options.train + options.val, seed=1)
    images, _ = render_radiographs(patients, vit.image_size, seed=1)
    images = torch.from_numpy(images)
    labels = task_labels(patients, seed=1).to_numpy(np.float32)
    train, val = (
        (images[: options.train], labels[: options.train]),
        (
            images[options.train :],
            labels[options.train :],
        ),
    )
    subsets = [
        draw_subsets(train[1], fraction, options.draws if fraction < 1 else 1, seed=0)
        for fraction in FRACTIONS
    ]

    features(encoder, images[:256])  # warms up
    start = time.perf_counter()
    views = np.stack([features(encoder, train[0]), features(encoder, train[0].flip(-1))])
    x_val = features(encoder, val[0])
    encoded = time.perf_counter()
    for rows in subsets:
        probes = fit_probes((views, train[1]), (x_val, val[1]), settings, subsets=rows)
    ours = time.perf_counter() - start
    heads = time.perf_counter() - encoded
    # The last fraction is 1, one head.
    ours_auroc = auroc(val[1], probes.probabilities(x_val)[0])

    start = time.perf_counter()
    usual_auroc = usual_loop(encoder, train, val, settings)
    one_head = time.perf_counter() - start
    passes = [rows.shape[0] * (rows.shape[1] + options.val) for rows in subsets]
    usual = one_head * sum(passes) / (options.train + options.val)
    report = {
        "images": {"train": options.train, "val": options.val},
        "heads": {f"{rows.shape[1]} labels": rows.shape[0] for rows in subsets},
        "epochs": options.epochs,
        "seconds": {
            "ours": ours,
            "ours, of it the heads": heads,
            "usual loop, the head on all labels": one_head,
            "usual loop, all heads, projected": usual,
        },
        "auroc": {"ours": ours_auroc, "usual loop": usual_auroc},
        **peak_memory(),
        "ratios": [
            {
                "what": "Probes, seconds: usual loop over ours",
                "value": usual / ours,
                "target": 20.0,
            },
            {
                "what": "Probes, AUROC: difference of the head on all labels",
                "value": abs(ours_auroc - usual_auroc),
                "target": 0.003,
                "at_most": True,
            },
        ],
    }
    write_report(report, options.json, load)


def features(encoder: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """CLS tokens (N, D) of grey images (N, H, W)."""
    with torch.inference_mode():
        return torch.cat([encode(encoder, normalise(b))[0] for b in images.split(256)]).numpy()


def usual_loop(encoder: torch.nn.Module, train: tuple, val: tuple, settings) -> float:
    """One head with the encoder in the loop: its best validation AUROC."""
    x, y = train[0], torch.from_numpy(train[1])
    head = torch.nn.Linear(encoder.embed_dim, y.shape[1])
    torch.nn.init.zeros_(head.weight)  # as ours starts
    torch.nn.init.zeros_(head.bias)
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    best = -1.0
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(x)).split(settings.batch_size):
            mirror = (torch.rand(len(rows)) < 0.5)[:, None, None]
            batch = torch.where(mirror, x[rows].flip(-1), x[rows])
            logits = head(encode(encoder, normalise(batch))[0])
            loss = F.binary_cross_entropy_with_logits(logits, y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            parts = [head(encode(encoder, normalise(b))[0]) for b in val[0].split(256)]
            best = max(best, auroc(val[1], torch.cat(parts).sigmoid().numpy()))
    return best


def auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Macro AUROC of scores (N, C)."""
    return float(macro_auroc(truth, scores, np.ones((1, len(truth))))[0])


if __name__ == "__main__":
    main()
