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

# %% tags=["hide-cell"]
# Installs the library where it is missing, as on Colab; does nothing where it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("pacx") is None:
    source = "pacx @ git+https://github.com/pacx-book/pacx-mae-book"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %% tags=["parameters"]
profile = "demo"  # name of a profile, or path of a YAML file: what to run, how big, on which data
runs = "runs"  # folder that holds all runs

# %% tags=["hide-input"]
from pacx.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - how to load the encoder in three lines, and how to do it without this library;
# - how to embed a folder of images, and to fit a probe with a few labels;
# - how long it takes on this machine;
# - what the encoder is not for.
#
# ## Before you start
#
# | concept | why | where |
# |---|---|---|
# | {term}`Encoder`, {term}`Embedding`, {term}`CLS token` | what comes out | [glossary](../book/glossary) |
# | {term}`Linear probe` | what one does with it | [chapter 06](06_clinical_transfer) |
#
# No ECG and no blood test is needed here: they taught the encoder, they are not its input.

# %%
from pacx.training.pipeline import train_encoders

train_encoders(run, "mae", "pacx")

# %% [markdown]
# ## Three lines
#
# The artefact is a folder with `model.safetensors` and `config.json`. The adapters of stage 2 are
# merged, the heads are gone.

# %%
from pacx.models.encoder import encode, load_encoder

folder = run.artefact("pacx")
encoder = load_encoder(folder).eval()
print(
    sorted(
        file.name
        for file in folder.iterdir()
        if file.suffix in (".safetensors", ".json") and file.stem != "made"
    )
)

# %% [markdown]
# ## It is a plain ViT
#
# Nothing about the network is special: it is the vision transformer of `timm`, with the key names
# that public MAE checkpoints use. So it also loads without `pacx`. `safetensors` holds arrays and
# nothing that could run.

# %%
import json

import timm
from safetensors.torch import load_file

config = json.loads((folder / "config.json").read_text())
state = load_file(folder / "model.safetensors")
plain = timm.create_model(
    "vit_base_patch16_224",
    img_size=config["image_size"],
    patch_size=config["patch_size"],
    embed_dim=config["width"],
    depth=config["depth"],
    num_heads=config["heads"],
    num_classes=0,
)
plain.load_state_dict(state)  # strict: every key, every shape
_ = plain.eval()

# %% tags=["hide-input"]
import pandas as pd

from pacx.figures.tables import show

shown = [key for key in state if not key.startswith("blocks") or key.startswith("blocks.0")]
show(pd.DataFrame({"key": shown, "shape": [tuple(state[key].shape) for key in shown]}))

# %% [markdown]
# ## Embed your own folder
#
# Reading does what training did: grey, squashed to a square, white = dense (MONOCHROME1 DICOM is
# inverted), then the ImageNet mean and standard deviation. An encoder that is fed differently sees
# another world. Put your own folder in place of this one.

# %%
import torch

from pacx.data.images import load_images, normalise
from pacx.evaluation.transfer import open_benchmark

dataset = open_benchmark(run, run.profile.benchmarks[0])
folder_of_images = dataset.root  # or Path("my/x-rays")
names = list(dataset.table["image"][:12])  # or ["first.png", "second.dcm"]
images = load_images(folder_of_images, names, config["image_size"], run.cache)
with torch.inference_mode():
    cls, patches = encode(encoder, normalise(torch.from_numpy(images.copy())))
print(f"{len(names)} images -> CLS {tuple(cls.shape)}, patches {tuple(patches.shape)}")

# %% [markdown]
# Which of them look alike to the encoder? The cosine between centred embeddings:

# %% mystnb={"image": {"alt": "Matrix of cosine similarities between the embeddings of twelve images, one on the diagonal."}} tags=["hide-input"]
import matplotlib.pyplot as plt

centred = torch.nn.functional.normalize(cls - cls.mean(dim=0), dim=1)
figure, axis = plt.subplots(figsize=(4.6, 3.8))
heat = axis.imshow(centred @ centred.T, cmap="RdBu_r", vmin=-1, vmax=1)
axis.set(xlabel="image", ylabel="image", xticks=range(len(names)), yticks=range(len(names)))
_ = figure.colorbar(heat, label="cosine of centred embeddings")

# %% [markdown]
# ## A probe with few labels
#
# Twenty patients with the finding and twenty without, and a logistic regression from scikit-learn:

# %%
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pacx.evaluation.features import extract_features, images_of

label = dataset.labels[0]
train, test = dataset.split("train"), dataset.split("test")
few = np.concatenate([np.flatnonzero(train[label] == value)[:20] for value in (0, 1)])
features = {
    split: extract_features(run, "pacx", images_of(run, dataset, split)).cls
    for split in ("train", "test")
}
probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
probe.fit(features["train"][few], train[label].to_numpy()[few])
scores = probe.decision_function(features["test"])

# %% tags=["hide-input"]
from IPython.display import Markdown, display

from pacx.evaluation.statistics import bootstrap_weights, fast_auroc, interval

truth = test[label].to_numpy()
weights = bootstrap_weights(test["patient"].to_numpy(), run.profile.bootstrap, run.profile.seed)
auroc = interval(
    fast_auroc(truth, scores, np.ones((1, len(truth))))[0], fast_auroc(truth, scores, weights)
)
display(
    Markdown(
        f"AUROC for {label.replace('_', ' ')} on {len(truth)} test images, from {len(few)} labels: "
        f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]."
    )
)

# %% [markdown]
# ## How fast

# %%
import time

rows = []
for batch in (1, 8, 64):
    pixels = torch.zeros(batch, 3, config["image_size"], config["image_size"])
    with torch.inference_mode():
        encoder(pixels)  # warm up
        started = time.perf_counter()
        for _ in range(5):
            encoder(pixels)
    rows.append({"batch": batch, "ms a batch": 1000 * (time.perf_counter() - started) / 5})
latency = pd.DataFrame(rows)
latency["images a second"] = 1000 * latency["batch"] / latency["ms a batch"]
_ = run.save_results("latency", latency)
show(latency, digits=1)

# %% tags=["hide-input"]
import platform

parameters = sum(p.numel() for p in encoder.parameters())
display(
    Markdown(
        f"Measured in this run on {platform.machine()} with {torch.get_num_threads()} thread(s), no GPU; the encoder "
        f"has {parameters / 1e6:.2f} million parameters. The paper's ViT-B/16 at 224 px is far larger."
    )
)

# %% [markdown]
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
#   see [chapter 09](09_components).
#
# ## Model card

# %% tags=["hide-input"]
facts = run.provenance()
card = [
    (
        "Model",
        f"{config['depth']}-layer ViT, width {config['width']}, patch {config['patch_size']}, {config['image_size']} px",
    ),
    ("Parameters", f"{parameters:,}"),
    ("Input", "one frontal chest X-ray, grey, white = dense"),
    (
        "Output",
        f"CLS token ({config['width']},), patch tokens ({patches.shape[1]}, {config['width']})",
    ),
    ("Trained on", "phantom patients (made up)" if run.is_phantom else "CheXpert and Symile-MIMIC"),
    ("Teachers", "12-lead ECG, 50 blood tests; not needed at inference"),
    ("Made by", f"profile {facts['profile']}, seed {facts['seed']}, commit {facts['commit']}"),
    ("Latency", f"{latency['ms a batch'][0]:.1f} ms for one image on this CPU"),
]
if (run.results / "transfer.parquet").is_file():
    transfer = run.load_results("transfer").query("model == 'pacx' and metric in ('AUROC', 'IoU')")
    card += [
        (
            f"{row['dataset']}, {row['metric']}",
            f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
        )
        for _, row in transfer.iterrows()
    ]
if (run.results / "claims.parquet").is_file():
    claims = run.load_results("claims")
    card.append(("Claims of chapter 09 that hold", f"{claims['holds'].sum()} of {len(claims)}"))
show(pd.DataFrame(card, columns=["", "this run"]))

# %% [markdown]
# Rows of results appear once chapters [06](06_clinical_transfer) and [09](09_components) have run.
#
# ## Check it yourself

# %%
with torch.inference_mode():
    batch = normalise(torch.from_numpy(images.copy()))
    # timm's own forward pass gives the CLS token that pacx gives.
    assert torch.allclose(plain(batch), cls, atol=1e-5)
    # An image's embedding does not depend on its neighbours in the batch.
    assert torch.allclose(encode(encoder, batch[:1])[0], cls[:1], atol=1e-4)
    # Stage 2 has changed the encoder.
    assert not torch.allclose(
        encode(load_encoder(run.artefact("mae")).eval(), batch)[0], cls, atol=1e-3
    )

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
display(
    Markdown(
        f"A folder of two files holds the encoder: {parameters / 1e6:.2f} million parameters, one X-ray in, "
        f"{config['width']} numbers out, {latency['images a second'].max():.0f} images a second at best on this CPU."
    )
)

# %% [markdown]
# ## Exercises
#
# 1. Your embeddings of real X-rays are nearly the same for everybody. What would you check first?
#
# ```{dropdown} Answer
# The input: the scale of the grey values, an inverted MONOCHROME1 image, normalisation done twice.
# Then the profile: an encoder of phantoms has no reason to spread real patients.
# ```
#
# 2. Why centre the embeddings before taking cosines?
#
# ```{dropdown} Answer
# All embeddings share a large common part. Without centring every cosine is near one; see
# [chapter 08](08_alignment).
# ```
#
# ## Next
#
# [Results beside the paper](../book/beside_the_paper), and [the limits](../book/limits) of all
# this.
#
# ## References
#
# The method: {cite:p}`liu2026pacx`. The network: {cite:p}`dosovitskiy2021vit`. Bias and shift:
# {cite:p}`seyyedkalantari2021underdiagnosis`, {cite:p}`zech2018variable`.
