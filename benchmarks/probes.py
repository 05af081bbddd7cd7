"""Linear probes: solved to convergence, as the paper trains them, and as the usual loop does.

Same phantoms, same untrained encoder. Three things are measured. The book's converged probes
against the paper's probes, all heads together on the same cached features. The converged probes
against scikit-learn, one regression after the other, and how far their logits are apart. And the
paper's probes on cached features against the usual loop, which sends every image, mirrored or not,
through the frozen encoder in every epoch, for one head after the other: the head on all labels is
trained to the end in both ways and their AUROCs compared; for the other heads the loop's time is
projected from the image passes that they need.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _measure import peak_memory, write_report
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from pacx.data.images import normalise
from pacx.evaluation.statistics import macro_auroc
from pacx.models.encoder import build_encoder, encode
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients, task_labels
from pacx.profile import ProbeSettings, load_profile
from pacx.training.paper_probe import fit_paper_probes
from pacx.training.probe import FOLDS, STRENGTHS, draw_subsets, fit_probes

FRACTIONS = (0.01, 0.1, 1.0)  # the last one has one head


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=3000, help="images")
    parser.add_argument("--val", type=int, default=500, help="images")
    parser.add_argument("--draws", type=int, default=5, help="heads of each fraction below 1")
    parser.add_argument("--epochs", type=int, default=40, help="of the paper's probe")
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
    cut = options.train
    train, val = (images[:cut], labels[:cut]), (images[cut:], labels[cut:])
    subsets = [
        draw_subsets(train[1], fraction, options.draws if fraction < 1 else 1, seed=0)
        for fraction in FRACTIONS
    ]

    features(encoder, images[:256])  # warms up
    start = time.perf_counter()
    views = np.stack([features(encoder, train[0]), features(encoder, train[0].flip(-1))])
    known, held_out = (views[0], train[1]), (features(encoder, val[0]), val[1])
    encoding = time.perf_counter() - start

    x_val = held_out[0]
    ways = {
        "converged": lambda rows: fit_probes(known, chosen_on(rows), subsets=rows),
        "paper": lambda rows: fit_paper_probes(known, held_out, settings, subsets=rows),
        "paper, mirrored": lambda rows: fit_paper_probes(
            (views, train[1]), held_out, settings, subsets=rows
        ),
        "scikit-learn": lambda rows: [
            one_by_one(known[0][one], known[1][one], x_val, chosen_on(rows)) for one in rows
        ],
    }

    def chosen_on(rows: np.ndarray) -> tuple | None:
        """All labels: the strength is chosen on validation; with fewer, within them."""
        return held_out if len(rows) == 1 else None

    seconds, fitted = {}, {}
    for name, fit in ways.items():
        fit(subsets[0][:1])  # warms up
        start = time.perf_counter()
        for rows in subsets:
            fitted[name] = fit(rows)
        seconds[name] = time.perf_counter() - start
    layer = fitted["converged"]
    logits = (torch.from_numpy(x_val) @ layer.weight + layer.bias)[0].numpy()
    apart = float(np.abs(logits - fitted["scikit-learn"][0]).max())

    start = time.perf_counter()
    usual_auroc = usual_loop(encoder, train, val, settings)
    one_head = time.perf_counter() - start
    passes = [rows.shape[0] * (rows.shape[1] + options.val) for rows in subsets]
    usual = one_head * sum(passes) / (options.train + options.val)
    cached = encoding + seconds["paper, mirrored"]
    paper_auroc = auroc(val[1], fitted["paper, mirrored"].probabilities(x_val)[0])
    report = {
        "images": {"train": options.train, "val": options.val},
        "heads": {f"{rows.shape[1]} labels": rows.shape[0] for rows in subsets},
        "epochs": options.epochs,
        "seconds": {
            "encoding, plain and mirrored": encoding,
            **{f"all heads, {name}": value for name, value in seconds.items()},
            "usual loop, the head on all labels": one_head,
            "usual loop, all heads, projected": usual,
        },
        "auroc": {
            "converged": auroc(val[1], layer.probabilities(x_val)[0]),
            "paper, mirrored": paper_auroc,
            "usual loop": usual_auroc,
        },
        **peak_memory(),
        "ratios": [
            {
                "what": "Probes, seconds: the paper's over the converged ones, same features",
                "value": seconds["paper"] / seconds["converged"],
                "target": 1.0,
            },
            {
                "what": "Probes, seconds: scikit-learn one by one over the converged ones",
                "value": seconds["scikit-learn"] / seconds["converged"],
                "target": 1.0,
            },
            {
                "what": "Probes, largest difference of a logit: converged ones from scikit-learn",
                "value": apart,
                "target": 1e-4,
                "at_most": True,
            },
            {
                "what": "Paper's probes, seconds: usual loop over ours, encoding included",
                "value": usual / cached,
                "target": 20.0,
            },
            {
                "what": "Paper's probes, AUROC: usual loop and ours apart, the head on all labels",
                "value": abs(paper_auroc - usual_auroc),
                "target": 0.003,
                "at_most": True,
            },
        ],
    }
    write_report(report, options.json, load)


def one_by_one(
    x: np.ndarray, y: np.ndarray, x_val: np.ndarray, held_out: tuple | None
) -> np.ndarray:
    """Logits (M, C) of scikit-learn's regressions, a label at a time, strengths as ours are chosen.

    Args:
        x: (N, D) training features.
        y: (N, C) labels.
        x_val: (M, D) features to answer.
        held_out: Features and labels to choose the strength on; None: cross-validation.
    """
    x, x_val = x.astype(np.float64), x_val.astype(np.float64)
    scaler = StandardScaler().fit(x)
    x, x_val = scaler.transform(x), scaler.transform(x_val)
    columns = []
    for label, truth in enumerate(y.T):
        few = min(truth.sum(), len(truth) - truth.sum())
        if held_out is None and few < 2:  # no fold could hold both classes
            columns.append(np.zeros(len(x_val)))
            continue
        if held_out is None:
            model = LogisticRegressionCV(
                Cs=STRENGTHS, cv=int(min(FOLDS, few)), scoring="neg_log_loss", max_iter=1000,
                l1_ratios=(0.0,), use_legacy_attributes=False,
            ).fit(x, truth)  # fmt: skip
        else:
            models = [
                LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(x, truth) for c in STRENGTHS
            ]
            known = held_out[1][:, label]
            loss = [log_loss(known, one.predict_proba(x_val)[:, 1]) for one in models]
            model = models[int(np.argmin(loss))]
        columns.append(model.decision_function(x_val))
    return np.stack(columns, axis=1)


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
