# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Using the encoder
#
# One folder, one X-ray in, one embedding out: how to use what this book has trained in work of
# your own.
#
# Reading time: about 10 minutes.

# %% tags=["hide-cell"]
# Installs the library where it is missing, as on Colab; does nothing where it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("pacx") is None:
    source = "pacx @ git+https://github.com/pacx-book/pacx-mae-book"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %% tags=["parameters"]
profile = "demo"  # name of a profile, or path of a .yaml file
runs = "runs"  # folder that holds all runs

# %% tags=["remove-input"]
from pacx.book.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - How to load the encoder in three lines, in `timm` and Hugging Face and, where it is installed, in
#   ONNX Runtime.
# - How to embed a folder of images, and to fit a probe with a few labels.
# - How to get probabilities, whether they mean what they say, and a warning for odd images.
# - How long it takes on this machine.
# - What the encoder is not for.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | {term}`Encoder`, {term}`Embedding`, {term}`CLS token` | what comes out | [glossary](../book/glossary) |
# | {term}`Linear probe` | what one does with it | [chapter 06](06_clinical_transfer) |
#
# No ECG and no blood test is needed here: they taught the encoder, they are not its input.

# %%
from pacx.training.pipeline import train_encoders

train_encoders(run, "mae", "pacx")

# %% [markdown]
# ## Load it in three lines
#
# The artefact is a folder with `model.safetensors` and `config.json`: the weights and the shape. The
# adapters of stage 2 are merged, the heads are gone.

# %%
from pacx.models.encoder import load_encoder

folder = run.artefact("pacx")
encoder = load_encoder(folder).eval()

# %% [markdown]
# ## One folder to share
#
# The export is the same encoder with everything that others need: `timm`'s settings, ONNX graphs where
# `onnx` is installed, a trained probe with its calibration, the range of the training images, a model card
# and, of a run on phantoms, a data card. In a terminal: `pacx export runs/demo --to encoder`.

# %%
import shutil

from pacx.share.cards import export_run
from pacx.share.export import ONNX, onnx_missing

benchmark = run.profile.benchmarks[0]
shared = run.folder / "encoder"
shutil.rmtree(shared, ignore_errors=True)  # of an earlier run of this chapter
# So few images for the range because this is a demonstration: the command takes more.
how = {"onnx": not onnx_missing(), "range_images": 200}
export_run(run, shared, probes=[benchmark], **how)
for file in sorted(file for file in shared.rglob("*") if file.is_file()):
    print(f"{file.stat().st_size / 1024:7.0f} KiB  {file.relative_to(shared)}")

# %% [markdown]
# ## It is a plain ViT
#
# Nothing about the network is special: it is the vision transformer of `timm`
# {cite:p}`wightman2019timm`, with the key names
# that public MAE checkpoints use. So it also loads without `pacx`. `safetensors` holds arrays and
# nothing that could run. Once the folder is uploaded to the Hugging Face hub, `hf-hub:NAME` replaces
# `local-dir:FOLDER`; `transformers.AutoModel.from_pretrained` takes the same folder.

# %%
import json

import timm
from safetensors.torch import load_file

config = json.loads((folder / "config.json").read_text())
state = load_file(shared / "model.safetensors")
plain = timm.create_model(f"local-dir:{shared}", pretrained=True).eval()

# %% tags=["hide-input"]
import pandas as pd

from pacx.figures.tables import show

shown = [key for key in state if not key.startswith("blocks") or key.startswith("blocks.0")]
show(pd.DataFrame({"key": shown, "shape": [tuple(state[key].shape) for key in shown]}))

# %% [markdown]
# ## Embed your own folder
#
# Reading does what training did: grey, squashed to a square, white = dense (MONOCHROME1 DICOM is
# inverted), then the ImageNet mean and standard deviation. Images prepared in another way get
# embeddings that mean little. Put your own folder in place of this one.

# %%
from pathlib import Path

import numpy as np
import torch

from pacx.data.images import load_images, normalise
from pacx.evaluation.transfer import open_benchmark
from pacx.models.encoder import encode

dataset = open_benchmark(run, benchmark)
folder_of_images = Path(dataset.root)  # or Path("my/x-rays")
names = list(dataset.table["image"][:12])  # or ["first.png", "second.dcm"]
images = load_images(folder_of_images, names, config["image_size"], run.cache)
with torch.inference_mode():
    cls, patches = encode(encoder, normalise(torch.from_numpy(images.copy())))
grid = config["image_size"] // config["patch_size"]
assert cls.shape == (len(names), config["width"])
assert patches.shape == (len(names), grid**2, config["width"])

# %% [markdown]
# The same through ONNX Runtime, which needs neither PyTorch nor `pacx`. Difference in the last
# digits comes from another order of additions; half precision has fewer digits.

# %%
if onnx_missing():
    missing = " ".join(onnx_missing())
    print(f"Left out. For this cell: pip install {missing}")
else:
    import onnxruntime

    pixels = normalise(torch.from_numpy(images.copy()))
    for precision in ("fp32", "fp16"):
        session = onnxruntime.InferenceSession(shared / ONNX[precision])
        (answer,) = session.run(["cls"], {"pixel_values": pixels.numpy()})
        difference = np.abs(answer - cls.numpy()).max()
        print(f"{precision}: largest difference {difference:.0e}")

# %% [markdown]
# Which of them look alike to the encoder? For each X-ray, the one of the others with the highest cosine
# between the centred embeddings:

# %%
centred = torch.nn.functional.normalize(cls - cls.mean(dim=0), dim=1)
cosines = (centred @ centred.T).fill_diagonal_(-1).numpy()
nearest = cosines.argmax(axis=1)

# %% mystnb={"image": {"alt": "X-rays in the upper row; below each the one of the others whose embedding is nearest, with the cosine."}} tags=["hide-input"]
from pacx.book.privacy import FEWEST, declare
from pacx.figures.cxr import montage

above = np.arange(min(6, len(names)))
below = nearest[above]
titles = [f"image {k}" for k in above]
titles += [f"image {j}, {cosines[i, j]:+.2f}" for i, j in zip(above, below, strict=True)]
figure = montage(images[[*above, *below]], titles, columns=len(above))
_ = declare(run, figure, dataset.name)

# %% [markdown]
# ## A probe with few labels
#
# A few images with the finding, as many without, and a logistic regression from scikit-learn on
# standardised features. The encoder gives two readings, the CLS token and the mean of the patches; try
# both on data of your own.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pacx.evaluation.features import extract_features, images_of

label = dataset.labels[0]
train, test = dataset.split("train"), dataset.split("test")
few = [np.flatnonzero(train[label] == value)[:20] for value in (0, 1)]
few = np.concatenate(few)
features = {
    split: extract_features(run, "pacx", images_of(run, dataset, split))
    for split in ("train", "test")
}
scores = {}
for pooling in ("cls", "mean"):
    learned = getattr(features["train"], pooling)
    unseen = getattr(features["test"], pooling)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    probe.fit(learned[few], train[label].to_numpy()[few])
    scores[pooling] = probe.decision_function(unseen)

# %% tags=["hide-input"]
from pacx.evaluation.statistics import bootstrap_weights, interval, weighted_auroc

truth = test[label].to_numpy()
weights = bootstrap_weights(test["patient"].to_numpy(), run.profile.bootstrap, run.profile.seed)
once = np.ones((1, len(truth)))
rows = []
for pooling, score in scores.items():
    auroc = interval(weighted_auroc(truth, score, once)[0], weighted_auroc(truth, score, weights))
    facts = {"task": label, "labels": len(few), "test images": len(truth), "pooling": pooling}
    rows.append({**facts, "AUROC": auroc.value, "low": auroc.low, "high": auroc.high})
show(pd.DataFrame(rows))

# %% [markdown]
# ## Are the probabilities calibrated?
#
# {term}`Calibration` asks: of all images with a probability of 0.3, three in ten should have the finding;
# have they? The exported probe is the converged one of [chapter 06](06_clinical_transfer), on the CLS
# token and all training labels. It was fitted on standardised features; mean and spread are folded into
# its weight and bias, so the file holds one linear layer that takes a CLS token as it comes. The export
# divides its logits by one temperature, chosen on the validation split {cite:p}`guo2017calibration`, whose
# labels have chosen the strength of the penalty as well. For labels judged one by one it never changes who
# ranks above whom, only how sure the probe sounds, and with few validation images it can also make things
# worse: look at both.
#
# The Brier score is the mean squared distance between a probability and its label, 1 or 0. Smaller is
# better: a probe that knows everything has 0, one that always says one half has 0.25. It falls when the
# probe tells more apart and when its probabilities come nearer to the shares that are observed. Its
# interval is over patients.

# %%
from pacx.share.calibration import calibration, load_probe

calibrated = load_probe(shared / "probes" / f"{benchmark}.safetensors")
brier = run.save_results("calibration", calibration(run, dataset, "pacx"))
shown = ["metric", "temperature", "value", "low", "high"]
show(brier.query("task == 'macro'")[shown])

# %% [markdown]
# The reliability diagram asks the question itself. Sort the test images by their probability, cut them
# into ten bins of equally many, and compare the mean probability of each bin with the share that has the
# finding:

# %%
from sklearn.calibration import calibration_curve

probabilities = calibrated.probabilities(features["test"].cls)[:, 0]
edges = np.quantile(probabilities, np.linspace(0, 1, 11))
bins = pd.DataFrame({"predicted": probabilities, "observed": truth}).groupby(
    np.searchsorted(edges[1:-1], probabilities)
)
curve = bins.mean().assign(images=bins.size())

by_library = calibration_curve(truth, probabilities, n_bins=10, strategy="quantile")
assert np.allclose(by_library, curve[["observed", "predicted"]].T)

# %% mystnb={"image": {"alt": "Reliability diagram: observed share of the finding against predicted probability, in bins of equally many test images, with a 95 percent interval, and a diagonal where both are equal."}} tags=["hide-input"]
import matplotlib.pyplot as plt
from scipy.stats import binomtest

from pacx.figures.style import colour_of

figure, axis = plt.subplots(figsize=(5.0, 4.6))
axis.plot([0, 1], [0, 1], color="0.6", linewidth=1)
for predicted, observed, n in curve.itertuples(index=False):
    band = binomtest(round(observed * n), int(n)).proportion_ci(method="wilson")
    axis.vlines(predicted, band.low, band.high, color=colour_of("pacx"), alpha=0.5)
axis.plot(curve["predicted"], curve["observed"], "o", color=colour_of("pacx"))
axis.set(xlabel="predicted probability", ylabel="observed share", xlim=(0, 1), ylim=(0, 1.05))
fewest = curve["images"].min()
axis.set_title(f"at least {fewest} images in each bin", fontsize=10)
if fewest >= FEWEST:
    declare(run, figure)

# %% [markdown]
# ## Probabilities, overlays, warnings
#
# In a terminal: `pacx predict xray.dcm folder/ --encoder encoder --probe NAME --overlays`; stopped,
# the same command goes on where it was. Here on a real radiograph that the package `pydicom-data`
# ships: this shows the tool, not a finding. An encoder of a phantom profile has only ever seen
# drawings, so its probability for a real chest means nothing, with or without a warning.

# %%
from IPython.display import Image
from pydicom.data import get_testdata_file

from pacx.share.predict import predict
from pacx.share.training_range import load_range

predictions = run.folder / "predictions"
shutil.rmtree(predictions, ignore_errors=True)
x_ray = get_testdata_file("RG1_UNCR.dcm", download=False)
how = {"probes": [benchmark], "overlay": True}
about_the_x_ray = predict([x_ray], shared, predictions, **how)
show(about_the_x_ray.assign(image="RG1_UNCR.dcm"))

# %% mystnb={"image": {"alt": "A real frontal chest radiograph, and the same with the encoder's attention rollout in colour over it."}} tags=["remove-input"]
declare(run, Image(filename=next(predictions.glob("overlays/*.png")), width=640))

# %% [markdown]
# The warning compares the embedding with those of training images. How often does it
# warn, and about which images?

# %% tags=["hide-input"]
training_range, rng = load_range(shared), np.random.default_rng(run.profile.seed)
shown = images_of(run, dataset, "test")[:40]
laterals = {}
if run.profile.pretraining == "chexpert":
    films = run.data_root / "chexpert"
    views = pd.read_csv(films / "train.csv", usecols=["Path", "Frontal/Lateral"])
    views = views[views["Frontal/Lateral"] == "Lateral"]["Path"]
    views = list(views.str.split("/", n=1).str[1][:40])
    size = config["image_size"]
    laterals["laterals"] = load_images(films, views, size, run.cache)
odd = {
    "test images": shown,
    "mirrored": shown[:, :, ::-1],
    "upside down": shown[:, ::-1],
    "a quarter turned": np.rot90(shown, axes=(1, 2)),
    "as a negative": 255 - shown,
    **laterals,
    "noise": rng.integers(0, 256, shown.shape, dtype=np.uint8),
}
together = np.concatenate(list(odd.values()))
tokens = np.hstack(extract_features(run, "pacx", together))
kinds = np.repeat(list(odd), [len(pictures) for pictures in odd.values()])
far = training_range.distance(tokens) > training_range.limit
rates = pd.DataFrame({"images": kinds, "share warned about": far})
rates = rates.groupby("images", sort=False).mean().reset_index()
show(run.save_results("range_check", rates), digits=2)

# %% [markdown]
# Do not expect a warning about mirrored images: pretraining mirrors half of them, so a mirrored chest is
# nothing unusual to the encoder. A warning says "unlike the training", never "wrong"; no warning is no proof of a good
# image.
#
# ## How fast it is

# %%
import time


def milliseconds(compute) -> float:
    """Mean of three calls after one to warm up."""
    compute()
    started = time.perf_counter()
    for _ in range(3):
        compute()
    return 1000 * (time.perf_counter() - started) / 3


rows = []
for batch in (1, 16):
    pixels = torch.zeros(batch, 3, config["image_size"], config["image_size"])
    with torch.inference_mode():
        took = milliseconds(lambda p=pixels: encoder(p))
        rows.append(("PyTorch", batch, took))
    if not onnx_missing():
        session = onnxruntime.InferenceSession(shared / ONNX["fp32"])
        given = {"pixel_values": pixels.numpy()}
        took = milliseconds(lambda s=session, g=given: s.run(["cls"], g))
        rows.append(("ONNX Runtime", batch, took))
latency = pd.DataFrame(rows, columns=["runtime", "batch", "ms a batch"])
latency["images a second"] = 1000 * latency["batch"] / latency["ms a batch"]
_ = run.save_results("latency", latency)
show(latency, digits=1)

# %% tags=["hide-input"]
import os
import platform

parameters = sum(p.numel() for p in encoder.parameters())
measured_on = {
    "machine": platform.machine(),
    "cores": os.cpu_count(),
    "threads for PyTorch": torch.get_num_threads(),
    "encoder's parameters, millions": parameters / 1e6,
}
show(pd.DataFrame([measured_on]), digits=2)

# %% [markdown]
# No GPU was used. The paper's ViT-B/16 at 224 px is far larger than the encoder of a phantom profile.
#
# ## What it is not for
#
# - **Not for patients.** It is no medical device. Nothing here has been validated for diagnosis or
#   triage.
# - **Phantom profiles have seen phantoms only.** On real X-rays their embeddings mean nothing
#   until you have measured that they do.
# - **Not a replacement for an ECG or a blood test.** It learned what of them is visible in an
#   X-ray, no more.
# - **Not neutral.** Probes inherit the bias of their labels and hospitals
#   {cite:p}`seyyedkalantari2021underdiagnosis,zech2018variable`. Check subgroups and a second
#   hospital.
# - **Not the last word on devices and positioning.** Distillation may have cost some of that;
#   see [chapter 10](10_forgetting).
#
# ## Model card
#
# It is the `README.md` of the export, made from this run's results. Rows of results appear once
# chapters [06](06_clinical_transfer) and [09](09_components) have run. It says which probe was exported,
# and what it reads.

# %% tags=["hide-output"]
print((shared / "README.md").read_text())

# %% [markdown]
# ## Check it yourself

# %%
from pacx.evaluation.transfer import train_probes

# The exported layer is the converged probe, as chapter 06 trains it.
trained = train_probes(run, dataset, "pacx")
assert np.allclose(calibrated.weight, trained.weight[0])
assert np.allclose(calibrated.bias, trained.bias[0, 0])
# On standardised features it is the same decision: the standardisation is in the layer.
cls_tokens = features["train"].cls.astype(float)
z = (cls_tokens - cls_tokens.mean(axis=0)) / cls_tokens.std(axis=0)
bias = calibrated.bias + cls_tokens.mean(axis=0) @ calibrated.weight
logits = z @ (cls_tokens.std(axis=0)[:, None] * calibrated.weight) + bias
assert np.allclose(logits, cls_tokens @ calibrated.weight + calibrated.bias)

with torch.inference_mode():
    batch = normalise(torch.from_numpy(images.copy()))
    # timm's own forward pass gives the CLS token that pacx gives.
    assert torch.allclose(plain(batch), cls, atol=1e-5)
    # An image's embedding does not depend on its neighbours in the batch.
    assert torch.allclose(encode(encoder, batch[:1])[0], cls[:1], atol=1e-4)
    # Stage 2 has changed the encoder.
    mae = load_encoder(run.artefact("mae")).eval()
    assert not torch.allclose(encode(mae, batch)[0], cls, atol=1e-3)
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# One folder holds all that the encoder needs: one X-ray in, one embedding out, in `timm`, Hugging Face and
# ONNX Runtime. Beside it lie converged probes on the CLS token with one temperature each, so that their
# probabilities can be judged, and the range of the training images, so that odd ones are warned about.
# What it may be used for is what you have measured on data of your own.

# %% [markdown]
# ## Exercises
#
# 1. Your embeddings of real X-rays are nearly the same for all patients. What would you check first?
#
# ```{dropdown} Answer
# The input: the scale of the grey values, an inverted MONOCHROME1 image, normalisation done twice.
# Then the profile: an encoder of phantoms has no reason to spread real patients.
# ```
#
# 2. Why centre the embeddings before taking cosines?
#
# ```{dropdown} Answer
# Embeddings share a large common part, so without centring any two have a high cosine.
# [Chapter 08](08_alignment) shows the same for the teachers' embeddings.
# ```
#
# ## Next
#
# [Chapter 13](13_what_it_costs) adds up what it costs to train such an encoder; a page of its own
# says [the limits](../book/limits) of all this.
#
# ## References
#
# The method: {cite:p}`liu2026pacx`. The network: {cite:p}`dosovitskiy2021vit,wightman2019timm`.
# Calibration: {cite:p}`guo2017calibration`. Bias and shift:
# {cite:p}`seyyedkalantari2021underdiagnosis`, {cite:p}`zech2018variable`.
