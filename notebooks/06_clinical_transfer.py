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
# # Clinical transfer
#
# Frozen encoders, the paper's benchmarks, the same patients for each, one linear layer on top: from
# which encoder can more be read?

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
# - What a {term}`Linear probe` measures, and how to solve one to convergence.
# - Why a probe that stops early can make one encoder look better than another.
# - How to read {term}`AUROC`, {term}`F1`, {term}`Dice` and {term}`IoU`, with intervals over
#   patients.
# - Why two models are compared on the *same* resampled patients.
# - What distillation changes for tasks of physiology, and for tasks that only the picture shows.
# - How far a linear model of the pixels gets, and how far the labels themselves allow.
# - How to tell a state from its neighbours, and from the devices of those who have it.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | masked autoencoder | the baseline `mae` | [chapter 02](02_cxr_mae) |
# | distillation | it turns `mae` into `pacx` | [chapter 05](05_distillation) |
# | splits by patient | a patient in two splits would flatter every model | [chapter 01](01_cohort) |

# %% [markdown]
# ## The encoders
#
# `random` is the same network with untrained weights: what the architecture gives for nothing.
# `imagenet` is in the paper's table too: here a ViT-B/16 that has learned to name photographs
# {cite:p}`deng2009imagenet,steiner2022train`. `mae` has learned from X-rays alone. `pacx` is `mae` after
# distillation from ECGs and blood tests.
#
# The public ImageNet weights fit one shape only, and they are not downloaded for you. Where this
# run cannot have them, the next cell says why, and the column is left out.

# %%
from IPython.display import Markdown, display

from pacx.errors import PacxError
from pacx.training.encoders import encoder_of
from pacx.training.pipeline import train_encoders

models = ["random", "imagenet", "mae", "pacx"]
train_encoders(run, "mae", "pacx")
try:
    encoder_of(run, "imagenet")
except PacxError as reason:
    models.remove("imagenet")
    display(Markdown(f"**No `imagenet` in this run:** {reason}"))

# %% [markdown]
# ## The benchmarks
#
# The profile lists the data sets. TB asks for tuberculosis; CheXchoNet for a left ventricle with a thick
# wall or a wide cavity, as measured by ultrasound; ChestX6 for one of six states of the lung; VinDr-CXR
# and NIH-14 for findings that readers or reports name; MedMod for groups of diagnoses of a stay
# ({term}`Phenotype`). Masks are of the lungs (COVID-QU-Ex, CXL-Seg) or of an infection (QaTa-COV19).
#
# Each is opened through one function that refuses a leak: no patient may be in two splits, and no
# patient of a benchmark made from MIMIC may have been in the distillation.

# %%
import pandas as pd

from pacx.book.privacy import declare
from pacx.evaluation.transfer import open_benchmark
from pacx.figures.tables import show

benchmarks = [open_benchmark(run, name) for name in run.profile.benchmarks]
probed = [dataset for dataset in benchmarks if dataset.task != "segmentation"]
segmented = [dataset for dataset in benchmarks if dataset.task == "segmentation"]
about = [
    {
        "data set": dataset.name,
        "task": dataset.task,
        "labels": len(dataset.labels) or "masks",
        **dataset.table["split"].value_counts().reindex(["train", "val", "test"]).to_dict(),
        "patients": dataset.table["patient"].nunique(),
    }
    for dataset in benchmarks
]
show(declare(run, pd.DataFrame(about), counts=["train", "val", "test", "patients"]))

# %% [markdown]
# A data set joins this chapter when the profile names it; nothing below changes. The paper has
# nine: six with labels, three with masks.
#
# ## The linear probe
#
# The encoder is {term}`frozen`. It turns each X-ray $i$ into an {term}`embedding` $h_i \in
# \mathbb{R}^D$. One linear layer on top gives a probability for each label $c$:
#
# $$\hat y_{ic} = \operatorname{sigmoid}(w_c^\top h_i + b_c).$$
#
# A linear layer can only use what already lies along some direction of the embedding. So a probe asks
# what is linearly decodable, not what could be learned from the X-ray with more labels and more
# freedom. This book's probe is logistic regression, in three steps:
#
# 1. **Standardise.** Every feature gets mean 0 and spread 1 over the training images, so that the
#    penalty below treats all of them alike.
# 2. **Solve to convergence.** The loss below, a binary cross-entropy and an L2 penalty, has one minimum,
#    which depends on no learning rate, number of epochs or seed.
# 3. **Choose the strength** $C_c$ of the penalty by the cross-entropy on validation images. Where only a
#    few labels may be used, it is chosen by cross-validation among these few.
#
# $$\mathcal{L}_c = -\sum_{i \in \mathcal{K}_c} \big[y_{ic} \log \hat y_{ic} + (1 - y_{ic})\log(1 - \hat
# y_{ic})\big] + \frac{1}{2 C_c} \lVert w_c \rVert^2$$
#
# Here $y_{ic}$ is the label, 1 or 0, and $\mathcal{K}_c$ holds the training images whose label is known.
# With several exclusive classes, softmax and {term}`cross-entropy` take the place of sigmoid and binary
# cross-entropy. By hand, with scikit-learn, for the first label that is
# known of all images:

# %%
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from pacx.evaluation.baselines import features_of
from pacx.training.probe import STRENGTHS, labels_of

first = next(
    dataset
    for dataset in probed
    if dataset.task != "multiclass" and dataset.table[dataset.labels[0]].notna().all()
)
splits = ("train", "val", "test")
x = {s: features_of(run, first, "pacx", s, "cls").astype(float) for s in splits}
y = {s: labels_of(first, s)[:, 0] for s in splits}

scale = StandardScaler().fit(x["train"])
train, val, test = (scale.transform(x[split]) for split in splits)
exact = {"tol": 1e-8, "max_iter": 10_000}
fits = [LogisticRegression(C=c, **exact).fit(train, y["train"]) for c in STRENGTHS]
losses = [log_loss(y["val"], fit.predict_proba(val), labels=[0, 1]) for fit in fits]
logits = fits[np.argmin(losses)].decision_function(test)

# %% [markdown]
# The library solves all labels at once, and its layer takes the features as they come. The logits
# are the same:

# %%
from pacx.evaluation.transfer import train_probes

probes = train_probes(run, first, "pacx")
weight, bias = probes.weight[0, :, 0].numpy(), probes.bias[0, 0, 0].item()
assert np.abs(x["test"] @ weight + bias - logits).max() < 1e-3

# %% [markdown]
# Two more choices are shown beside this one wherever encoders are compared:
#
# - **The paper's probe**: the same layer on features that are not standardised, trained by AdamW for
#   the epochs of the profile's `paper_probe`. The epoch with the best validation AUROC is kept. Where
#   the profile sets `flip`, as `paper` does, each step sees an image plain or mirrored at random.
# - **Pooling**: the embedding is the CLS token after the last layer, as in the paper, or the mean of
#   the patch tokens.
#
# The same benchmark, step by step. A threshold on $\hat y$ makes a decision; the ROC curve shows every
# threshold at once: sensitivity (the share of patients with the finding who are found) against
# 1 − specificity (the share of those without it who are alarmed). AUROC is the area below it, and also
# the chance that a random patient with the finding scores higher than a random one without.

# %%
from pacx.evaluation.transfer import compare_probes, probe_scores

truth = labels_of(first, "test")[:, 0]
scores = {model: probe_scores(run, first, model)[0, :, 0] for model in models}
auroc = compare_probes(run, first, models, tasks=first.labels[:1]).set_index("model")

# %% mystnb={"image": {"alt": "ROC curves of each encoder on the first benchmark with the diagonal of guessing; the area under each curve, with its 95 percent interval, is in the legend."}} tags=["hide-input"]
import matplotlib.pyplot as plt
from sklearn.metrics import roc_curve

from pacx.figures.style import colour_of, name_of

known = truth == truth  # NaN is not equal to itself
figure, axis = plt.subplots(figsize=(5.0, 4.8))
axis.plot([0, 1], [0, 1], "--", color="0.5", label="guessing")
for model, row in auroc.iterrows():
    false_alarms, found, _ = roc_curve(truth[known], scores[model][known])
    label = f"{name_of(model)}: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    axis.plot(false_alarms, found, color=colour_of(model), label=label)
axis.set(
    xlabel="1 − specificity",
    ylabel="sensitivity",
    title=f"{first.name}: {first.labels[0].replace('_', ' ')}",
)
axis.legend(title="AUROC [95 %]")
_ = declare(run, figure)

# %% [markdown]
# ## How long was the probe trained?
#
# The paper's probe stops after a fixed number of epochs. What would it have read after more, or fewer?
# Below it is trained anew, from an eighth of its epochs to eight times as many, on raw and on
# standardised features of the CLS token. On phantoms the score is the mean over the tasks of
# physiology, which a later section explains; on real data that of the first benchmark.

# %%
from pacx.constants import PHYSIOLOGY_TASKS
from pacx.evaluation.statistics import macro_auroc
from pacx.training.paper_probe import fit_paper_probes
from pacx.training.probe import fit_probes

asked, names = first, first.labels
if run.is_phantom:
    asked, names = open_benchmark(run, "phantom-truth"), PHYSIOLOGY_TASKS
tasks = [asked.labels.index(name) for name in names]
y = {split: labels_of(asked, split) for split in splits}
once = np.ones((1, len(y["test"])))


def auroc_of(probes, x):
    scores = probes.probabilities(x["test"])[0]
    return macro_auroc(y["test"][:, tasks], scores[:, tasks], once)[0]


usual = run.profile.paper_probe
lengths = []
for model in ("mae", "pacx"):
    raw = {split: features_of(run, asked, model, split, "cls") for split in splits}
    scale = StandardScaler().fit(raw["train"])
    standardised = {split: scale.transform(x) for split, x in raw.items()}
    for features, x in {"raw": raw, "standardised": standardised}.items():
        train, val = ((x[split], y[split]) for split in ("train", "val"))
        for times in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8):
            epochs = max(1, round(times * usual.epochs))
            settings = usual.model_copy(update={"epochs": epochs})
            probes = fit_paper_probes(train, val, settings, seed=run.profile.seed)
            lengths.append((model, "paper", features, epochs, auroc_of(probes, x)))
    converged = auroc_of(fit_probes(train, val), standardised)
    lengths.append((model, "converged", "standardised", np.nan, converged))

# %% tags=["hide-input"]
lengths = pd.DataFrame(lengths, columns=["model", "probe", "features", "epochs", "value"])
facts = {"dataset": asked.name, "pooling": "cls", "metric": "AUROC"}
lengths = run.save_results("probe_length", lengths.assign(**facts))

# %% mystnb={"image": {"alt": "AUROC of MAE and PaCX-MAE from the CLS token against the epochs of the AdamW probe, one panel for raw and one for standardised features; horizontal lines show the converged probe, a vertical line the paper's number of epochs."}} tags=["hide-input"]
from pacx.figures.ladder import probe_length

_ = probe_length(lengths, usual.epochs)

# %% [markdown]
# Where a curve starts low and rises, two things make it slow. The MAE's loss is computed from the patch
# tokens alone: no loss ever touches the CLS token, so most of it may be the same for every patient,
# and what tells patients apart may vary little. And the paper's probe takes features as they come: a
# step of AdamW moves all weights by about the same amount, so a feature of small spread needs many
# steps. Distillation, in contrast, trains the CLS token directly.
#
# The trap is known. The MAE's public code puts a `BatchNorm1d` without weights of its own before the
# head of its linear probe ([`main_linprobe.py`](https://github.com/facebookresearch/mae/blob/main/main_linprobe.py)),
# which standardises the features. Readers still ask why a token that no loss has trained can be probed
# at all ([facebookresearch/mae#70](https://github.com/facebookresearch/mae/issues/70),
# [lucidrains/vit-pytorch#218](https://github.com/lucidrains/vit-pytorch/issues/218)).
#
# Take home, whatever the method: **a probe that has not converged measures how easily a few steps of
# AdamW read the features, not what they hold.** Two encoders can differ in one and not in the other. So
# the converged probe is the yardstick from here on.

# %% [markdown]
# ## Intervals over patients, and pairs
#
# A test set is a sample. With other patients the AUROC would be another number, hence a
# {term}`confidence interval`. The {term}`bootstrap` imitates that: resample as many *patients* as there
# are, with replacement, and score again. All images of a patient come and go together, because they
# are not independent. The middle 95 % of the scores are the interval, as in the legend of the ROC
# curves.
#
# To compare two encoders, both are scored on the *same* resamples and subtracted: $\Delta^{(d)} =
# S^{(d)}_\text{PaCX-MAE} - S^{(d)}_\text{MAE}$, with $S^{(d)}$ the score on resample $d$. A resample of
# easy patients helps both and leaves the difference alone. So the interval of $\Delta$ is narrower than
# the two single intervals suggest, and it is the one to look at.

# %%
from itertools import product

from pacx.evaluation.baselines import POOLINGS
from pacx.evaluation.transfer import compare_segmentation

parts = [compare_segmentation(run, dataset, models) for dataset in segmented]
for probe, pooling in product(("converged", "paper"), POOLINGS):
    yardstick = (probe, pooling) == ("converged", "cls")
    metrics = ("AUROC", "F1", *(("AUPRC", "F1 (tuned)") if yardstick else ()))
    parts += [
        compare_probes(run, d, models, metric=metric, probe=probe, pooling=pooling)
        for d, metric in product(probed, metrics)
    ]
transfer = pd.concat(parts, ignore_index=True).drop(columns="fraction")
run.save_results("transfer", transfer)
by_masks = transfer["task"] == "segmentation"
_ = run.save_results("segmentation", transfer[by_masks])

# %% mystnb={"image": {"alt": "Four panels, the converged probe and the paper's probe on the CLS token and on the mean of patches: AUROC of each encoder on each benchmark with labels, as dots with 95 percent intervals."}} tags=["hide-input"]
from pacx.figures.results import dots, forest_panels
from pacx.figures.tables import POOLING_NAMES

probe_names = {"converged": "converged probe", "paper": "the paper's probe"}
auroc = transfer[transfer["metric"] == "AUROC"].replace({"pooling": POOLING_NAMES})
auroc["probe"] = auroc["probe"].map(probe_names)
_ = dots(
    auroc.assign(reading=auroc["probe"] + ", " + auroc["pooling"]),
    rows="dataset",
    panels="reading",
    chance=0.5,
    one_scale=True,
)

# %% [markdown]
# The paired differences, right of the line PaCX-MAE is ahead:

# %% mystnb={"image": {"alt": "Forest plot in two panels, the converged probe and the paper's probe: paired difference in AUROC, PaCX-MAE minus MAE, on each benchmark with labels, filled for the CLS token and hollow for the mean of patches, with 95 percent intervals around zero."}} tags=["hide-input"]
_ = forest_panels(
    auroc[auroc["model"] == "pacx"],
    rows="dataset",
    panels="probe",
    filled="pooling",
    x_label="difference in AUROC, PaCX-MAE minus MAE",
)

# %% [markdown]
# Each interval may miss the truth once in twenty, and there are many of them. [Chapter
# 09](09_components) states a few claims beforehand and corrects their p-values together. AUROC looks at
# the order of the patients only. Three more scores look at the same probes:
#
# - **{term}`AUPRC`** is the area below precision against recall, here the average precision. It also
#   looks at the order only, but asks how many of those flagged have the finding. Guessing reaches the
#   share of those who have it, so AUPRC of two data sets cannot be compared.
# - **F1** is taken at a probability of 0.5, as in the paper. With few ill patients a probe seldom
#   says 0.5 or more, and F1 is low although the order is good.
# - **F1 (tuned)** is taken at the threshold that was best on the *validation* patients, one for each
#   label. The gap between the two F1 is the choice of threshold, not what can be read from the encoder.
#   It is there even when every probability is right.
#
# Scores of several labels are averaged ({term}`macro average`). Of exclusive classes the likeliest one
# is the decision, so there both F1 are equal. A label whose known test cases all have one value has no
# AUROC, and one without a positive no AUPRC: the averages leave it out. F1 counts 0 for a label without
# a positive.

# %% tags=["remove-input"]
from pacx.figures.tables import folded, in_words

readings = in_words(transfer.query("probe == 'converged'"), "dataset", "metric", "pooling")
display(folded(show(readings), "All scores of the converged probe"))

# %% tags=["remove-input"]
from pacx.evaluation.transfer import labels_left_out

left_out = pd.DataFrame(
    [(dataset.name, label) for dataset in probed for label in labels_left_out(dataset)],
    columns=["data set", "label that the averages leave out"],
)
display(folded(show(left_out), "Labels that the averages leave out in this run"))

# %% [markdown]
# ## Segmentation
#
# A small decoder grows the frozen *patch* tokens into a mask: of the lungs or, in QaTa-COV19, of the
# infection. Dice and IoU are computed for each image and averaged. The CLS token plays no part
# here: the question is whether distillation has spoiled the map of patches. The decoder of the last
# epoch is scored; the paper keeps the epoch with the best validation Dice.

# %% mystnb={"image": {"alt": "Two panels, IoU and Dice: each encoder on each benchmark with masks, as dots with 95 percent intervals, one colour a model."}} tags=["hide-input"]
if segmented:
    _ = dots(transfer[by_masks], rows="dataset", panels="metric")

# %%
from pacx.evaluation.features import images_of
from pacx.training.segmentation import segment

if segmented:
    dataset, n = segmented[0], 4
    train = images_of(run, dataset, "train"), images_of(run, dataset, "train", "mask")
    images = images_of(run, dataset, "test")[:n]
    found = [segment(run, dataset.name, model, train, images) for model in ("mae", "pacx")]

# %% mystnb={"image": {"alt": "Test X-rays of the segmentation benchmark in rows: the true lung mask outlined, then the outlines found with the MAE encoder and with the PaCX-MAE encoder."}} tags=["hide-input"]
from pacx.figures.cxr import montage

if segmented:
    true = images_of(run, dataset, "test", "mask")[:n] > 0
    titles = [who if i == 0 else "" for who in ("true mask", "MAE", "PaCX-MAE") for i in range(n)]
    figure = montage(
        np.concatenate([images] * 3),
        titles,
        columns=n,
        masks={"lungs": np.concatenate([true, *found])},
    )
    _ = declare(run, figure, dataset.name)

# %% [markdown]
# ## Beside the paper
#
# The paper's numbers are the paper's: real patients, ViT-B/16, hundreds of epochs. Ours come from
# this run, from the CLS token, by the converged probe and by the paper's. Do not compare cell by cell.
# Compare the order of the models; whether a difference is more than chance, its interval says. First
# the main score, in the paper's order.

# %% tags=["hide-input"]
from pacx.figures.tables import beside_the_paper

beside = beside_the_paper(transfer, "transfer")
main = beside["metric"].isin(["AUROC", "IoU"])
show(beside[main])

# %% [markdown]
# Then the second one: F1 at 0.5, or Dice.

# %% tags=["remove-input"]
show(beside[~main])

# %% [markdown]
# ## What only phantoms can tell
#
# A phantom's true state is known. With real data this section is empty. Its tasks can be sorted by
# cause:
#
# - *physiology*, which an ECG or a blood test can carry too: {term}`hypertrophy`, {term}`dilation`,
#   {term}`congestion`, {term}`anaemia`, kidney disease, inflammation, and obstructive lung disease
#   ({term}`COPD`);
# - *anatomy*: a pacemaker, a tube, a rotated patient, a {term}`pneumothorax`. In the phantom hospital
#   only the picture shows it and no teacher knows it. (A real ECG shows a pacemaker that paces.)
#
# The ECG teacher was trained on neither group, but its diagnoses share causes with physiology.
# [Chapter 09](09_components) measures what it knows of each state.

# %%
from pacx.constants import ANATOMY_TASKS

groups = {"physiology": PHYSIOLOGY_TASKS, "anatomy": ANATOMY_TASKS}
if run.is_phantom:
    phantoms = open_benchmark(run, "phantom-truth")
    parts = [
        compare_probes(run, phantoms, models, tasks=tasks, pooling=pooling).assign(
            group=group, task=name
        )
        for pooling in POOLINGS
        for group, whole in groups.items()
        for name, tasks in [*((t, [t]) for t in whole), (f"mean of {group}", whole)]
    ]
    physiology = run.save_results("physiology", pd.concat(parts, ignore_index=True))

# %% mystnb={"image": {"alt": "Forest plot of the difference in AUROC, PaCX-MAE minus MAE, for every task of physiology and anatomy and for the mean of each group, filled for the CLS token and hollow for the mean of patches, with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    _ = forest_panels(
        physiology[physiology["model"] == "pacx"].replace({"pooling": POOLING_NAMES}),
        rows="task",
        panels="metric",
        filled="pooling",
        x_label="difference in AUROC, PaCX-MAE minus MAE",
    )

# %% [markdown]
# ### Baselines and ceilings
#
# A gain is only worth something if nothing simpler reaches it, and it is only large or small beside
# what can be reached at all. Below the encoders stand models that are simpler, above them ceilings:
#
# | row | what it is |
# |---|---|
# | pixels (PCA) | principal components of the pixels: a linear model, without a network |
# | pixels, or MAE, ridge to the teachers | a linear map of low rank from the pixels, or from the frozen MAE, to the teachers' embeddings: distillation without training the encoder |
# | trained on the labels | the MAE's network trained end to end on all training labels: how much a network of this size finds in these X-rays |
# | the teachers | probes on the ECG's and the labs' embeddings, on other patients of the same population: what there is to distil |
# | the true states | a probe on the hidden states: what is missing to 1 is the noise of the labels |
#
# The number of components, and the rank of the ridge, are chosen by the loss on validation images. Of
# anatomy, neither the teachers nor the states know more than who tends to carry a device.

# %%
from pacx.evaluation.ladder import ladder

simpler = ["pixels", "pixels-teachers", "mae-teachers"]
if run.is_phantom:
    train_encoders(run, "supervised")
    steps = ladder(run, phantoms, [*models, *simpler, "supervised", "states"])
    run.save_results("ladder", steps)

# %% mystnb={"image": {"alt": "The ladder: AUROC on physiology and on anatomy, one row a model from random weights over pixels, MAE and PaCX-MAE to a network trained on the labels, the teachers and the true states, beside a line at chance; filled for all labels and hollow for few, circles for the CLS token, squares for the mean of patches, with 95 percent intervals."}} tags=["hide-input"]
from pacx.figures.ladder import ladder as draw_ladder

if run.is_phantom:
    _ = draw_ladder(steps)

# %% tags=["remove-input"]
if run.is_phantom:
    columns = ["group", "fraction", "probe", "pooling"]
    values = show(in_words(steps, *columns))
    display(folded(values, "All values of the ladder, with the paper's probe"))

# %% [markdown]
# An MAE that is no better than the pixels' components would mean that a linear model sees all there is:
# such phantoms could say nothing about networks. `pacx accept` tests that before any claim is made.
#
# ### A shortcut
#
# Sicker patients carry devices more often, as in hospitals {cite:p}`zech2018variable`. So a probe can
# score on the task by finding the device. `pacemaker and tube alone` sees these two labels and no
# picture; on patients without a device it can only guess. Compare how far the encoders fall there.
# Not all of a fall is the device's: these patients are less ill, so they are harder to tell apart.

# %%
from pacx.evaluation.shortcut import shortcut_scores

concerned = {t: [t] for t in ("congestion", "inflammation")}
concerned["mean of physiology"] = PHYSIOLOGY_TASKS
if run.is_phantom:
    shortcut = shortcut_scores(run, phantoms, ["mae", "pacx"], concerned)
    run.save_results("shortcut", shortcut)

# %% mystnb={"image": {"alt": "Four panels, all test patients and those without pacemaker or tube, read from the CLS token and from the mean of patches: AUROC of the two device labels alone, of MAE and of PaCX-MAE on congestion, inflammation and the mean of physiology, with 95 percent intervals and a line at chance."}} tags=["hide-input"]
if run.is_phantom:
    reading = shortcut["patients"] + ", " + shortcut["pooling"].map(POOLING_NAMES)
    shown = shortcut.assign(reading=reading)
    _ = dots(shown, rows="task", panels="reading", chance=0.5, one_scale=True)

# %% [markdown]
# ### Another hospital
#
# The test split `shifted` comes from a hospital with another exposure, more devices and more AP views.
# The probes stay as they are. Its patients are others, so look at each interval by itself, and at
# whether the order of the models stays.

# %%
hospitals = {"test": "same hospital", "shifted": "another hospital"}
if run.is_phantom:
    elsewhere = pd.concat(
        compare_probes(
            run, phantoms, models, tasks=PHYSIOLOGY_TASKS, pooling=p, split=split
        ).assign(hospital=name)
        for p, (split, name) in product(POOLINGS, hospitals.items())
        if split in set(phantoms.table["split"])
    )
    run.save_results("another_hospital", elsewhere)

# %% mystnb={"image": {"alt": "AUROC on physiology of each encoder among test patients of the same hospital and of another one, from the CLS token and from the mean of patches, with 95 percent intervals and a line at chance."}} tags=["hide-input"]
if run.is_phantom:
    _ = dots(
        elsewhere.assign(reading="AUROC, " + elsewhere["pooling"].map(POOLING_NAMES)),
        rows="hospital",
        panels="reading",
        chance=0.5,
        one_scale=True,
    )

# %% [markdown]
# ### Is it the state itself?
#
# A task can be read through its neighbours: a wide heart makes kidney disease more likely. The
# *residual* of a state is what the other states do not predict. A {term}`R²` above zero says that the
# X-ray's features hold something of this state itself. Two states are negative controls: a phantom's
# X-ray shows neither potassium nor a delay of conduction, so their R² must not be above zero. Part of
# what is read of age, atrial load, inflammation and fluid may come from devices and the view.

# %%
from pacx.evaluation.teachers import residual_scores

controls = {state: f"{state} (control: zero)" for state in ("potassium", "conduction")}
if run.is_phantom:
    residuals = residual_scores(run, phantoms, ["random", "pixels", "mae", "pacx"])
    run.save_results("residual_states", residuals)

# %% mystnb={"image": {"alt": "R squared of ridge regressions from random weights, pixels, MAE and PaCX-MAE to the residual of each state, from the CLS token and from the mean of patches, with 95 percent intervals around a line at zero; potassium and conduction, the last two rows, are controls."}} tags=["hide-input"]
if run.is_phantom:
    _ = dots(
        residuals.assign(
            state=residuals["state"].replace(controls),
            reading="R², " + residuals["pooling"].map(POOLING_NAMES),
        ),
        rows="state",
        panels="reading",
        chance=0,
        one_scale=True,
    )

# %% [markdown]
# ## Beside the evidence
#
# One run is one cohort of patients and one training. The book's evidence repeats this chapter with
# the same settings on fresh cohorts, several trainings on each, and its interval covers both.
# [How](../book/protocol) it was gathered, and what it leaves out, has a page of its own. PaCX-MAE minus
# MAE:

# %% tags=["remove-input"]
from pacx.figures.tables import beside_the_evidence

main_reading = "model == 'pacx' and (metric == 'IoU' or metric == 'AUROC' and probe == 'converged')"
beside_the_evidence(transfer.query(main_reading), "transfer")

# %% [markdown]
# ## Check it yourself

# %%
from sklearn.metrics import roc_auc_score

# Our AUROC is scikit-learn's.
row = transfer.query("dataset == @first.name and metric == 'AUROC' and model == 'pacx'")
value = row.query("probe == 'converged' and pooling == 'cls'")["value"].item()
truth = labels_of(first, "test")
scores = np.asarray(probe_scores(run, first, "pacx"))[0]
both = [(t[~np.isnan(t)], s[~np.isnan(t)]) for t, s in zip(truth.T, scores.T, strict=True)]
theirs = np.mean([roc_auc_score(t, s) for t, s in both if len(set(t)) == 2])
assert abs(value - theirs) < 1e-6

# Labels that belong to somebody else cannot be predicted: 0.5 on average.
shuffle = np.random.default_rng(0).permutation
once = np.ones((1, len(scores)))
null = [macro_auroc(truth[shuffle(len(scores))], scores, once)[0] for _ in range(200)]
assert abs(np.mean(null) - 0.5) < 0.03

# Nobody is in two splits.
assert run.profile.leaks == "waive" or not any(d.patients_in_two_splits for d in benchmarks)
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# PaCX-MAE minus MAE with all labels, in this run:

# %% tags=["remove-input"]
if run.is_phantom:
    answers, keys = steps[steps["fraction"] == 1], ["group", "probe", "pooling"]
else:
    answers, keys = transfer[transfer["metric"] == "AUROC"], ["dataset", "probe", "pooling"]
show(in_words(answers[answers["model"] == "pacx"], *keys))

# %% [markdown]
# The rows of the converged probe say what distillation has changed in what the encoder holds, on the
# CLS token and on the patches; where an interval includes zero, no difference was shown. The paper's
# probe also measures how quickly features are read, so a gain that it alone shows is not one of
# knowledge. Whether a gain matters, the ladder says: beside what the pixels and a ridge to the teachers
# reach, and below what the labels allow.

# %% [markdown]
# ## Exercises
#
# 1. An encoder scores 0.80 [0.77, 0.83] and another 0.82 [0.79, 0.85]. May one say that the second
#    is better?
#
# ```{dropdown} Answer
# These two intervals do not tell. They hold what both models share: how easy the resampled patients
# were. Look at the interval of the paired difference. It may well lie above zero, or not.
# ```
#
# 2. Why does `random` score above 0.5 on some tasks?
#
# ```{dropdown} Answer
# Untrained layers mix the pixels but lose little. What changes much of the picture, such as long dark
# lungs or haze, survives the mixing, and a linear layer finds some of it. Look at tube and pneumothorax,
# which are small or thin, and compare with the MAE: where that is near chance as well, the task is hard,
# and random weights are not to blame.
# ```
#
# 3. A report says: "Probes of AdamW, 40 epochs, CLS token: encoder B beats encoder A by 8 points." What
#    would you ask for?
#
# ```{dropdown} Answer
# The same comparison with a probe that has converged on standardised features, and with the mean of the
# patches. If A was trained by a loss that never touched its CLS token, and B by one that did, the 8
# points may be the probe's. Look at the curve of how long the probe was trained.
# ```
#
# ## Next
#
# These probes had all labels. Hospitals seldom do: [chapter 07](07_label_efficiency) takes most of
# them away.
#
# ## References
#
# The method: {cite:p}`liu2026pacx`. The data sets: {cite:p}`jaeger2014shenzhen`,
# {cite:p}`bhave2024chexchonet`, {cite:p}`chestx6`, {cite:p}`nguyen2022vindr`, {cite:p}`wang2017chestxray8`,
# {cite:p}`elsharief2025medmod`, {cite:p}`tahir2021covidquex`, {cite:p}`degerli2021qata,degerli2022osegnet`,
# {cite:p}`nimalsiri2023cxlseg`. The probe of the MAE: {cite:p}`he2022mae`. Shortcuts:
# {cite:p}`zech2018variable`.
