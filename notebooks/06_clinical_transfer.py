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
# Frozen encoders, the paper's benchmarks, the same patients for each, one linear layer on top: which
# encoder's features predict more?
#
# Reading time: about 20 minutes, and 5 for the appendix.

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

# %%
from pacx.book.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - What a {term}`Linear probe` measures, and how to solve one to convergence, by hand.
# - Why a probe that stops early can make one encoder look better than another.
# - How to read {term}`AUROC`, {term}`F1`, {term}`Dice` and {term}`IoU`, with intervals over
#   patients.
# - Why two models are compared on the *same* resampled patients.
# - What distillation changes for tasks of physiology, and for tasks that only the picture shows.
# - How far a linear model of the pixels gets, and how far the labels themselves allow.
# - In the appendix: how to tell a state from the states and devices that go with it.
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
# `random` is the same network with untrained weights: what the architecture gives without any training.
# `imagenet` is in the paper's table too: here a ViT-B/16 that has learned to name photographs
# {cite:p}`deng2009imagenet,steiner2022train`. `mae` has learned from X-rays alone. `pacx` is `mae` after
# distillation from ECGs and blood tests.
#
# The public ImageNet weights fit one shape only, and they are not downloaded for you. Where this
# run cannot have them, the next cell prints why, and the column is left out.

# %%
import textwrap

from pacx.errors import PacxError
from pacx.training.encoders import encoder_of
from pacx.training.pipeline import train_encoders

models = ["random", "imagenet", "mae", "pacx"]
train_encoders(run, "mae", "pacx")
try:
    encoder_of(run, "imagenet")
except PacxError as reason:
    models.remove("imagenet")
    print(textwrap.fill(f"imagenet is left out: {reason}", 80))

# %% [markdown]
# ## The benchmarks
#
# The profile lists the data sets. TB asks for tuberculosis; CheXchoNet for a left ventricle with a thick
# wall or a wide cavity, as measured by ultrasound; ChestX6 for one of six states of the lung; VinDr-CXR and
# NIH-14 for findings that radiologists marked or reports mention; MedMod for groups of diagnoses of a stay
# ({term}`Phenotype`). Masks are of the lungs (COVID-QU-Ex, CXL-Seg) or of an infection (QaTa-COV19).
#
# Each is opened through one function that refuses a leak, unless the profile waives this: no patient may be
# in two splits, and no patient of a benchmark made from MIMIC may have been in the distillation.

# %%
from pacx.evaluation.transfer import open_benchmark

benchmarks = [open_benchmark(run, name) for name in run.profile.benchmarks]
probed = [d for d in benchmarks if d.task != "segmentation"]
segmented = [d for d in benchmarks if d.task == "segmentation"]

# %%
import pandas as pd

from pacx.book.privacy import declare
from pacx.figures.tables import show

about, splits = [], ("train", "val", "test")
for d in benchmarks:
    sizes = d.table["split"].value_counts().reindex(splits)
    facts = {"data set": d.name, "task": d.task, "labels": len(d.labels)}
    patients = d.table["patient"].nunique()
    about.append(facts | sizes.to_dict() | {"patients": patients})
counts = [*splits, "patients"]
show(declare(run, pd.DataFrame(about), counts=counts))

# %% [markdown]
# A data set joins this chapter when the profile names it. One without labels has masks. The paper has nine
# data sets: six with labels, three with masks.
#
# ## The linear probe
#
# Think of the encoder as a colleague who takes the same set of measurements from every X-ray, without being
# told what will be asked. A **probe** is a risk score over these measurements, like those used at the bedside:
# each measurement has a weight, the weighted measurements are added up, and the weights are fitted by logistic
# regression on patients whose diagnosis is known. The encoder itself is {term}`frozen`: it learns nothing
# about the diagnosis. So if a sum this simple separates new patients with the disease from those without it,
# the measurements must have contained the disease. If the sum does not, the disease may still be visible on the
# X-ray, or even be hidden in the measurements, but no weighted sum brings it out. A probe is a yardstick for
# encoders, not the best classifier that one could build.
#
# In symbols: X-ray $i$ becomes an {term}`embedding` $h_i \in \mathbb{R}^D$. One linear layer on top gives a
# probability for each label $c$:
#
# $$\hat y_{ic} = \operatorname{sigmoid}(w_c^\top h_i + b_c).$$
#
# A linear layer can only use what already lies along some direction of the embedding: it asks what is
# linearly decodable. This book's probe is logistic regression, in three steps:
#
# 1. **Standardise.** Every feature gets mean 0 and spread 1 over the training images, so that the
#    penalty below treats all of them alike.
# 2. **Solve to convergence.** The loss below, a binary cross-entropy and an L2 penalty, has one minimum,
#    which depends on no learning rate, number of epochs or seed.
# 3. **Choose the strength** $1 / C_c$ of the penalty by the cross-entropy on validation images. Where only
#    a few labels may be used, it is chosen by cross-validation among these few.
#
# $$\mathcal{L}_c = -\sum_{i \in \mathcal{K}_c} \big[y_{ic} \log \hat y_{ic} + (1 - y_{ic})\log(1 - \hat
# y_{ic})\big] + \frac{1}{2 C_c} \lVert w_c \rVert^2$$
#
# Here $y_{ic}$ is the label, 1 or 0, and $\mathcal{K}_c$ holds the training images whose label is known.
# With several exclusive classes, softmax and {term}`cross-entropy` take the place of sigmoid and binary
# cross-entropy.
#
# The three steps by hand, for the first label that is known of all images:

# %%
from pacx.evaluation.baselines import features_of
from pacx.training.probe import STRENGTHS, labels_of

binary = [d for d in probed if d.task != "multiclass"]
first = next(d for d in binary if d.table[d.labels[0]].notna().all())
h = {s: features_of(run, first, "pacx", s, "cls").astype(float) for s in splits}
y = {s: labels_of(first, s)[:, 0] for s in splits}

# %%
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

scale = StandardScaler().fit(h["train"])
x = {s: scale.transform(h[s]) for s in splits}
fits, losses = [], []
for strength in STRENGTHS:
    fit = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000)
    fits.append(fit.fit(x["train"], y["train"]))
    chances = fit.predict_proba(x["val"])
    losses.append(log_loss(y["val"], chances, labels=[0, 1]))
by_hand = fits[np.argmin(losses)].decision_function(x["test"])

# %% [markdown]
# The library solves all labels at once, and folds the standardisation into its layer. The logits are the
# same. (The tolerance is wider than usual because both solvers stop shortly before the minimum.)

# %%
from pacx.evaluation.transfer import train_probes

probes = train_probes(run, first, "pacx")
w, b = probes.weight[0, :, 0].numpy(), probes.bias[0, 0, 0].item()
np.testing.assert_allclose(h["test"] @ w + b, by_hand, rtol=0, atol=1e-3)

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
# threshold at once: sensitivity (the share of patients with the finding who are found) against 1 −
# specificity (the share of those without it who are flagged). AUROC is the area below it, and also the
# chance that a random patient with the finding scores higher than a random one without.

# %% mystnb={"image": {"alt": "ROC curves of each encoder for the first label of the first benchmark, with the diagonal of guessing."}}
import matplotlib.pyplot as plt
from sklearn.metrics import roc_curve

from pacx.evaluation.transfer import compare_probes, probe_scores
from pacx.figures.style import colour_of, name_of
from pacx.figures.tables import in_words

task = first.labels[0]
figure, axis = plt.subplots(figsize=(5.0, 4.8))
axis.plot([0, 1], [0, 1], "--", color="0.5", label="guessing")
for m in models:
    scores = probe_scores(run, first, m)[0, :, 0]
    alarms, found, _ = roc_curve(y["test"], scores)
    axis.plot(alarms, found, color=colour_of(m), label=name_of(m))
axis.set(xlabel="1 − specificity", ylabel="sensitivity", title=first.name)
axis.legend()
_ = declare(run, figure)

# %%
auroc = compare_probes(run, first, models, tasks=[task])
show(in_words(auroc, "dataset", "task"))

# %% [markdown]
# ## How long was the probe trained?
#
# The paper's probe stops after a fixed number of epochs. What would it score after more, or fewer? Below,
# this probe is trained anew, from an eighth of its epochs to eight times as many, on raw and on
# standardised features of the CLS token. On phantoms the score is the mean over the tasks of physiology,
# which a later section explains; on real data that of the first benchmark.

# %%
from pacx.constants import PHYSIOLOGY_TASKS
from pacx.evaluation.statistics import macro_auroc

asked, tasks = first, first.labels
if run.is_phantom:
    asked, tasks = open_benchmark(run, "phantom-truth"), PHYSIOLOGY_TASKS
columns = [asked.labels.index(task) for task in tasks]
labels = {s: labels_of(asked, s) for s in splits}
once = np.ones((1, len(labels["test"])))


def auroc_of(probes, x):
    scores = probes.probabilities(x["test"])[0][:, columns]
    return macro_auroc(labels["test"][:, columns], scores, once)[0]


usual, rows = run.profile.paper_probe, []
both = ("raw", "standardised")

# %%
from itertools import product

from pacx.training.paper_probe import fit_paper_probes
from pacx.training.probe import fit_probes

for model, features in product(("mae", "pacx"), both):
    x = {s: features_of(run, asked, model, s, "cls") for s in splits}
    if features == "standardised":
        scale = StandardScaler().fit(x["train"])
        x = {s: scale.transform(x[s]) for s in splits}
    train, val = ((x[s], labels[s]) for s in ("train", "val"))
    for times in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8):
        epochs = max(1, round(times * usual.epochs))
        how = usual.model_copy(update={"epochs": epochs})
        probe = fit_paper_probes(train, val, how, seed=run.profile.seed)
        rows.append((model, "paper", features, epochs, auroc_of(probe, x)))
    if features == "standardised":
        score = auroc_of(fit_probes(train, val), x)
        rows.append((model, "converged", features, np.nan, score))

# %% mystnb={"image": {"alt": "AUROC of MAE and PaCX-MAE from the CLS token against the epochs of the AdamW probe, one panel for raw and one for standardised features; horizontal lines show the converged probe, a vertical line the paper's number of epochs."}}
from pacx.figures.ladder import probe_length

names = ["model", "probe", "features", "epochs", "value"]
facts = {"dataset": asked.name, "pooling": "cls", "metric": "AUROC"}
lengths = pd.DataFrame(rows, columns=names).assign(**facts)
lengths = run.save_results("probe_length", lengths)
_ = probe_length(lengths, usual.epochs)

# %% [markdown]
# Where a curve starts low and rises, two things make it slow. The MAE's loss is computed from the patches
# alone and reaches the CLS token only through the decoder's attention, so most of this token may be the
# same for every patient, and what tells patients apart may vary little. And the paper's probe does not
# standardise the features: a step of AdamW moves all weights by about the same amount, so a feature of
# small spread needs many steps. Distillation, in contrast, trains the CLS token directly.
#
# The trap is known. The MAE's public code puts a `BatchNorm1d` without weights of its own before the head
# of its linear probe
# ([`main_linprobe.py`](https://github.com/facebookresearch/mae/blob/main/main_linprobe.py)), which
# standardises the features. Users still ask why a token that no loss asks for can be probed at all
# ([facebookresearch/mae#70](https://github.com/facebookresearch/mae/issues/70),
# [lucidrains/vit-pytorch#218](https://github.com/lucidrains/vit-pytorch/issues/218)).
#
# The lesson, whatever the method: **a probe that has not converged measures how easily a few steps of AdamW
# read the features, not what they hold.** Two encoders can differ in one and not in the other. So the
# converged probe is the yardstick from here on.

# %% [markdown]
# ## Intervals over patients, and pairs
#
# A test set is a sample. With other patients the AUROC would be another number, hence a
# {term}`confidence interval`. The {term}`bootstrap` imitates that: resample as many *patients* as there
# are, with replacement, and score again. All images of a patient are resampled together, because they are
# not independent. The middle 95 % of the scores are the interval, as in the table below the ROC curves.
#
# To compare two encoders, both are scored on the *same* resamples and subtracted: $\Delta^{(d)} =
# S^{(d)}_\text{PaCX-MAE} - S^{(d)}_\text{MAE}$, with $S^{(d)}$ the score on resample $d$. A resample of
# easy patients helps both and leaves the difference alone. So the interval of $\Delta$ is narrower than
# the two single intervals suggest, and it is the one to look at.

# %%
from pacx.evaluation.baselines import POOLINGS
from pacx.evaluation.transfer import compare_segmentation

parts = [compare_segmentation(run, d, models) for d in segmented]
for probe, pooling in product(("converged", "paper"), POOLINGS):
    metrics = ["AUROC", "F1"]
    if (probe, pooling) == ("converged", "cls"):
        metrics += ["AUPRC", "F1 (tuned)"]
    for d, metric in product(probed, metrics):
        how = {"metric": metric, "probe": probe, "pooling": pooling}
        parts.append(compare_probes(run, d, models, **how))
transfer = pd.concat(parts, ignore_index=True).drop(columns="fraction")
run.save_results("transfer", transfer)
by_masks = transfer[transfer["task"] == "segmentation"]
_ = run.save_results("segmentation", by_masks)

# %% mystnb={"image": {"alt": "Four panels, the converged probe and the paper's probe on the CLS token and on the mean of patches: AUROC of each encoder on each benchmark with labels, as dots with 95 percent intervals."}}
from pacx.figures.results import dots, forest_panels
from pacx.figures.tables import POOLING_NAMES

kinds = {"converged": "converged probe", "paper": "the paper's probe"}
auroc = transfer[transfer["metric"] == "AUROC"]
auroc = auroc.replace({"pooling": POOLING_NAMES, "probe": kinds})
auroc["reading"] = auroc["probe"] + ", " + auroc["pooling"]
look = {"rows": "dataset", "chance": 0.5, "one_scale": True}
_ = dots(auroc, panels="reading", **look)

# %% [markdown]
# The paired differences; right of the line, PaCX-MAE is ahead:

# %% mystnb={"image": {"alt": "Forest plot in two panels, the converged probe and the paper's probe: paired difference in AUROC, PaCX-MAE minus MAE, on each benchmark with labels, filled for the CLS token and hollow for the mean of patches, with 95 percent intervals around zero."}}
gain = auroc[auroc["model"] == "pacx"]
x_label = "difference in AUROC, PaCX-MAE minus MAE"
look = {"rows": "dataset", "filled": "pooling", "x_label": x_label}
_ = forest_panels(gain, panels="probe", **look)

# %% [markdown]
# Each interval may miss the truth once in twenty, and there are many of them. [Chapter 09](09_components)
# states a few claims beforehand and corrects their p-values together. AUROC depends only on the order of
# the patients. The same probes get three more scores:
#
# - **{term}`AUPRC`** is the area below precision against recall, here the average precision. It also
#   depends on the order only, but asks how many of those flagged have the finding. Guessing scores the
#   share of those who have it, so AUPRC cannot be compared between data sets.
# - **F1** is taken at a probability of 0.5, as in the paper. With few ill patients a probe seldom says 0.5
#   or more, and F1 can be low although the order is good.
# - **F1 (tuned)** is taken at the threshold that was best on the *validation* patients, one for each label.
#   The gap between the two F1 comes from the choice of threshold, not from the encoder. There can be a gap
#   even when every probability is right.
#
# Scores of several labels are averaged ({term}`macro average`). Of exclusive classes the likeliest one
# is the decision, so there both F1 are equal. A label whose known test cases all have one value has no
# AUROC, and one without a positive no AUPRC: the averages leave it out. F1 counts 0 for a label without
# a positive.

# %% [markdown]
# ## Segmentation
#
# A small decoder turns the frozen *patch* tokens into a mask: of the lungs or, in QaTa-COV19, of the
# infection. Dice and IoU are computed for each image and averaged. The CLS token plays no part here: the
# question is whether distillation has harmed the patch tokens. The decoder of the last epoch is scored; the
# paper keeps the epoch with the best validation Dice.

# %% mystnb={"image": {"alt": "Two panels, IoU and Dice: each encoder on each benchmark with masks, as dots with 95 percent intervals, one colour a model."}}
if segmented:
    _ = dots(by_masks, rows="dataset", panels="metric")

# %% [markdown]
# Two good masks look alike, so the last two columns show in white where a mask is wrong:

# %% mystnb={"image": {"alt": "Three test X-rays of the first benchmark with masks in rows: the X-ray, the true mask, and in white the pixels where the mask found from the MAE encoder, and from the PaCX-MAE encoder, differs from the true one."}}
from pacx.evaluation.features import images_of
from pacx.figures.cxr import reconstructions
from pacx.training.segmentation import segment

if segmented:
    d = segmented[0]
    train = [images_of(run, d, "train", what) for what in ("image", "mask")]
    images = images_of(run, d, "test")[:3]
    true = images_of(run, d, "test", "mask")[:3] > 0
    columns = {"X-ray": images, "true mask": np.uint8(255 * true)}
    for m in ("mae", "pacx"):
        wrong = segment(run, d.name, m, train, images) != true
        columns[f"{name_of(m)}: wrong"] = np.uint8(255 * wrong)
    _ = declare(run, reconstructions(columns), d.name)

# %% [markdown]
# The paper's numbers stand beside this run's on [a page of their own](../book/beside_the_paper).
#
# ## What only phantoms can tell
#
# A phantom's true state is known. With real data this section is empty. Its tasks can be sorted by
# cause:
#
# - *physiology*, which an ECG or a blood test can carry too: {term}`hypertrophy`, {term}`dilation`,
#   {term}`congestion`, {term}`anaemia`, kidney disease, inflammation, and obstructive lung disease
#   ({term}`COPD`);
# - *anatomy*: a pacemaker, a tube, a rotated patient, a {term}`pneumothorax`. In the phantom hospital only
#   the X-ray shows these, and no teacher knows them. (A real ECG shows a pacemaker that paces.)
#
# The ECG teacher was trained on neither group, but its diagnoses share causes with physiology.
# [Chapter 09](09_components) measures what it knows of each state.

# %%
from pacx.constants import ANATOMY_TASKS

groups = {"physiology": PHYSIOLOGY_TASKS, "anatomy": ANATOMY_TASKS}
if run.is_phantom:
    phantoms, parts = open_benchmark(run, "phantom-truth"), []
    for pooling, (group, whole) in product(POOLINGS, groups.items()):
        sets = {name: [name] for name in whole} | {f"mean of {group}": whole}
        for task, some in sets.items():
            how = {"tasks": some, "pooling": pooling}
            table = compare_probes(run, phantoms, models, **how)
            parts.append(table.assign(group=group, task=task))
    physiology = pd.concat(parts, ignore_index=True)
    run.save_results("physiology", physiology)

# %% mystnb={"image": {"alt": "Forest plot of the difference in AUROC, PaCX-MAE minus MAE, for every task of physiology and anatomy and for the mean of each group, filled for the CLS token and hollow for the mean of patches, with 95 percent intervals."}}
if run.is_phantom:
    gain = physiology[physiology["model"] == "pacx"]
    gain = gain.replace({"pooling": POOLING_NAMES})
    look = {"rows": "task", "filled": "pooling", "x_label": x_label}
    _ = forest_panels(gain, panels="metric", **look)

# %% [markdown]
# ### Baselines and ceilings
#
# A gain is only worth something if nothing simpler reaches it, and it can be called large or small only
# beside what can be reached at all. So the ladder also has simpler models and ceilings:
#
# | row | what it is |
# |---|---|
# | pixels (PCA) | principal components of the pixels: a linear model, without a network |
# | pixels, or MAE, ridge to the teachers | a linear map of low rank from the pixels, or from the frozen MAE, to the teachers' embeddings: distillation without training the encoder |
# | trained on the labels | the MAE's network trained end to end on all training labels: how much a network of this size finds in these X-rays |
# | the teachers | probes on the ECG's and the labs' embeddings, on other patients of the same population: what there is to distil |
# | the true states | a probe on the hidden states: the gap to 1 is the noise of the labels |
#
# The number of components, and the rank of the ridge, are chosen by the loss on validation images. About
# anatomy, the teachers and the states say no more than who tends to carry a device.

# %% mystnb={"image": {"alt": "The ladder: AUROC on physiology and on anatomy, one row a model from random weights over pixels, MAE and PaCX-MAE to a network trained on the labels, the teachers and the true states, beside a line at chance; filled for all labels and hollow for few, circles for the CLS token, squares for the mean of patches, with 95 percent intervals."}}
from pacx.evaluation.ladder import ladder
from pacx.figures import ladder as figures

if run.is_phantom:
    train_encoders(run, "supervised")
    simpler = ["pixels", "pixels-teachers", "mae-teachers"]
    rungs = [*models, *simpler, "supervised", "states"]
    steps = ladder(run, phantoms, rungs)
    _ = figures.ladder(run.save_results("ladder", steps))

# %% [markdown]
# If the MAE were no better than the pixels' components, such phantoms could say nothing about networks.
# `pacx accept` tests this before any claim is made.

# %% [markdown]
# ## Beside the evidence
#
# One run is one cohort of patients and one training. The book's evidence repeats this chapter with the
# demo's settings on nine fresh cohorts, with one training on each, so its interval covers both
# ([how](../book/protocol)). PaCX-MAE minus MAE, first from the CLS token, then in both readings:

# %% mystnb={"image": {"alt": "One row a result, below its name: the difference in each fresh cohort as small dots, that of this run as a triangle, and the mean of the cohorts with a 95 percent interval as a diamond, around a line at zero."}} tags=["remove-input"]
from pacx.figures.components import cohorts_beside
from pacx.figures.tables import beside_the_evidence

converged = "metric == 'AUROC' and probe == 'converged'"
parts = [by_masks.query("metric == 'IoU'"), transfer.query(converged)]
main = pd.concat(parts).query("model == 'pacx'")
_ = cohorts_beside(main[main["pooling"] != "mean"], "transfer")
beside_the_evidence(main, "transfer")

# %% [markdown]
# ## Check it yourself

# %%
from sklearn.metrics import roc_auc_score

# Our AUROC is scikit-learn's.
score = probe_scores(run, first, "pacx")[0, :, 0]
ours = compare_probes(run, first, ["pacx"], tasks=[first.labels[0]])
theirs = roc_auc_score(y["test"], score)
np.testing.assert_allclose(ours["value"].item(), theirs, atol=1e-6)

# Shuffled labels cannot be predicted: 0.5 on average.
rng, null = np.random.default_rng(0), []
for _ in range(200):
    null.append(roc_auc_score(rng.permutation(y["test"]), score))
assert abs(np.mean(null) - 0.5) < 0.03

# No patient is in two splits, unless the profile says that it accepts this.
if run.profile.leaks != "waive":
    assert not any(d.patients_in_two_splits for d in benchmarks)

# %%
# Exercise 4: AUROC is the share of pairs that are in the right order.
ill, well = score[y["test"] == 1], score[y["test"] == 0]
right = (ill[:, None] > well) + 0.5 * (ill[:, None] == well)
np.testing.assert_allclose(right.mean(), theirs)
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# Which encoder's features predict more is answered by the figures of paired differences, for each
# benchmark, from the CLS token and from the patches: where an interval of the converged probe includes
# zero, no difference was shown. The paper's probe also measures how quickly features are read, so a gain
# that it alone shows need not be a gain in what the encoder holds. Whether a gain matters is answered by
# the ladder, between what the pixels and a ridge to the teachers reach and what the labels allow.

# %% [markdown]
# ## Exercises
#
# 1. An encoder scores 0.80 [0.77, 0.83] and another 0.82 [0.79, 0.85]. May one say that the second
#    is better?
#
# ```{dropdown} Answer
# These two intervals do not tell. Both include what the models share: how easy the resampled patients were.
# Look at the interval of the paired difference. It may lie above zero, or not.
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
# 4. Compute the AUROC of the first benchmark without a ROC curve: the chance that a random patient with the
#    finding scores higher than a random patient without it. Count a tie as one half.
#
# ```{dropdown} Answer
# Compare every patient with the finding with every patient without it:
#
#     score = probe_scores(run, first, "pacx")[0, :, 0]
#     ill, well = score[y["test"] == 1], score[y["test"] == 0]
#     right = (ill[:, None] > well) + 0.5 * (ill[:, None] == well)
#     right.mean()
# ```
#
# ## Next
#
# These probes had all labels. Hospitals seldom do: [chapter 07](07_label_efficiency) takes most of
# them away.

# %% [markdown]
# ## Appendix
#
# ### All scores
#
# For reference: all scores of the converged probe, those of the ladder with the paper's probe, and the
# labels that the averages leave out because their known test cases all have one value.

# %%
from IPython.display import display

from pacx.evaluation.transfer import labels_left_out
from pacx.figures.tables import folded

converged = transfer.query("probe == 'converged'")
numbers = show(in_words(converged, "dataset", "metric", "pooling"))
display(folded(numbers, "All scores of the converged probe"))
if run.is_phantom:
    keys = ["group", "fraction", "probe", "pooling"]
    numbers = show(in_words(steps, *keys))
    display(folded(numbers, "All values of the ladder"))
pairs = [(d.name, label) for d in probed for label in labels_left_out(d)]
numbers = show(pd.DataFrame(pairs, columns=["data set", "label"]))
display(folded(numbers, "Labels that the averages leave out"))

# %% [markdown]
# ### A shortcut
#
# Sicker patients carry devices more often, as in hospitals {cite:p}`zech2018variable`. So a probe can do
# well on a task by finding the device. `pacemaker and tube alone` sees these two labels and no picture; on
# patients without a device it can only guess. Compare how far the encoders fall there. A fall is not all
# due to devices: these patients are less ill, so they are harder to tell apart.

# %% mystnb={"image": {"alt": "Four panels, all test patients and those without pacemaker or tube, read from the CLS token and from the mean of patches: AUROC of the two device labels alone, of MAE and of PaCX-MAE on congestion, inflammation and the mean of physiology, with 95 percent intervals and a line at chance."}}
from pacx.evaluation.shortcut import shortcut_scores

single = {task: [task] for task in ("congestion", "inflammation")}
asked = single | {"mean of physiology": PHYSIOLOGY_TASKS}
look = {"panels": "reading", "chance": 0.5, "one_scale": True}
if run.is_phantom:
    shortcut = shortcut_scores(run, phantoms, ["mae", "pacx"], asked)
    run.save_results("shortcut", shortcut)
    read = shortcut["pooling"].map(POOLING_NAMES)
    shortcut["reading"] = shortcut["patients"] + ", " + read
    _ = dots(shortcut, rows="task", **look)

# %% [markdown]
# ### Another hospital
#
# The test split `shifted` comes from a hospital with another exposure, more devices and more AP views. The
# probes are not retrained. The patients are others, so look at each interval by itself, and at whether the
# order of the models stays the same.

# %% mystnb={"image": {"alt": "AUROC on physiology of each encoder among test patients of the same hospital and of another one, from the CLS token and from the mean of patches, with 95 percent intervals and a line at chance."}}
hospitals = {"test": "same hospital", "shifted": "another hospital"}
if run.is_phantom:
    parts, known = [], set(phantoms.table["split"])
    for p, split in product(POOLINGS, [s for s in hospitals if s in known]):
        how = {"tasks": PHYSIOLOGY_TASKS, "pooling": p, "split": split}
        table = compare_probes(run, phantoms, models, **how)
        parts.append(table.assign(hospital=hospitals[split]))
    elsewhere = run.save_results("another_hospital", pd.concat(parts))
    read = elsewhere["pooling"].map(POOLING_NAMES)
    elsewhere["reading"] = "AUROC, " + read
    _ = dots(elsewhere, rows="hospital", **look)

# %% [markdown]
# What becomes of the gain over the MAE on the fresh cohorts, when the patients with a device are left out,
# and in the other hospital? (These two tables were added to the evidence after it had been designed: they
# are exploratory.)

# %% mystnb={"image": {"alt": "One row a result, below its name: the difference in each fresh cohort as small dots, that of this run as a triangle, and the mean of the cohorts with a 95 percent interval as a diamond, around a line at zero."}} tags=["hide-input"]
if run.is_phantom:
    gain = "model == 'pacx' and task != 'congestion' and task != 'inflammation'"
    _ = cohorts_beside(shortcut.query(gain), "shortcut")
    _ = cohorts_beside(elsewhere.query(gain), "another_hospital")

# %% [markdown]
# ### Is it the state itself?
#
# A task can be read through its neighbours: a wide heart makes kidney disease more likely. The
# *residual* of a state is what the other states do not predict. A {term}`R²` above zero says that the
# X-ray's features hold something of this state itself. Two states are negative controls: a phantom's
# X-ray shows neither potassium nor a delay of conduction, so their R² must not be above zero. Part of
# what is read of age, atrial load, inflammation and fluid may come from devices and the view.

# %% mystnb={"image": {"alt": "R squared of ridge regressions from random weights, pixels, MAE and PaCX-MAE to the residual of each state, from the CLS token and from the mean of patches, with 95 percent intervals around a line at zero; potassium and conduction, the last two rows, are controls."}}
from pacx.evaluation.teachers import residual_scores

control = {s: f"{s} (control: zero)" for s in ("potassium", "conduction")}
if run.is_phantom:
    some = ["random", "pixels", "mae", "pacx"]
    residuals = residual_scores(run, phantoms, some)
    run.save_results("residual_states", residuals)
    residuals["state"] = residuals["state"].replace(control)
    read = residuals["pooling"].map(POOLING_NAMES)
    residuals["reading"] = "R², " + read
    _ = dots(residuals, rows="state", **(look | {"chance": 0}))

# %% [markdown]
# ## References
#
# The method: {cite:p}`liu2026pacx`. The data sets: {cite:p}`jaeger2014shenzhen`,
# {cite:p}`bhave2024chexchonet`, {cite:p}`chestx6`, {cite:p}`nguyen2022vindr`, {cite:p}`wang2017chestxray8`,
# {cite:p}`elsharief2025medmod`, {cite:p}`tahir2021covidquex`, {cite:p}`degerli2021qata,degerli2022osegnet`,
# {cite:p}`nimalsiri2023cxlseg`. The probe of the MAE: {cite:p}`he2022mae`. Shortcuts:
# {cite:p}`zech2018variable`.
