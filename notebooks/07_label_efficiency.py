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
# # Label efficiency
#
# The same probes with a small share of the labels: where a better encoder should help most.
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

# %%
from pacx.book.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - How training labels are drawn so that no class is lost, written out for one draw.
# - What a probe may look at when it has few labels, and what would be cheating.
# - What distillation gains when labels are few, and whether that is more than with all labels.
# - Why one draw is not enough, and how far apart draws are.
# - Which data sets cannot be cut that small at all.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | {term}`Converged probe`, {term}`AUROC`, {term}`Bootstrap` | the same probes and intervals | [chapter 06](06_clinical_transfer) |
# | distillation | makes `pacx` from `mae` | [chapter 05](05_distillation) |
#
# The data sets are the profile's benchmarks with yes-or-no labels. A run on phantoms adds the physiology
# tasks, whose answers follow from the phantoms' true states.

# %%
from pacx.constants import PHYSIOLOGY_TASKS
from pacx.evaluation.transfer import open_benchmark
from pacx.training.pipeline import train_encoders

models = ["mae", "pacx"]
train_encoders(run, *models)
data = []  # name, data set, the labels that count
if run.is_phantom:
    truth = open_benchmark(run, "phantom-truth")
    data.append(("phantom physiology", truth, PHYSIOLOGY_TASKS))
for dataset in (open_benchmark(run, b) for b in run.profile.benchmarks):
    if dataset.task in ("binary", "multilabel"):
        data.append((dataset.name, dataset, dataset.labels))

# %% [markdown]
# ## Few labels, drawn with care
#
# Expert labels are expensive. How good does the probe get with a few of them? A plain random
# sample may hold no patient with a rare disease, and then there is nothing to learn. The draw
# therefore starts with one positive and one negative of every label, and fills the rest at random. Here is
# one such draw by hand, at the smallest share of the profile, from the data set with the most training
# images.

# %%
import numpy as np

from pacx.training.probe import labels_of

fractions, seed = run.profile.label_efficiency.fractions, run.profile.seed
few, most = min(fractions), max(fractions)
_, shown, tasks = max(data, key=lambda d: len(d[1].split("train")))
labels = labels_of(shown, "train")  # (N, C): 1, 0 or NaN
n = round(few * len(labels))

# %%
rng = np.random.default_rng([seed, 0])  # of draw number 0
chosen = []
for column in labels.T:
    for value in (1, 0):
        rows = np.flatnonzero(column == value)
        if len(rows) and not np.isin(rows, chosen).any():
            chosen.append(rng.choice(rows))
rest = np.setdiff1d(np.arange(len(labels)), chosen)
more = rng.choice(rest, n - len(chosen), replace=False)
subset = np.concatenate([chosen, more])

# %% [markdown]
# The library draws the same rows:

# %%
from pacx.training.probe import draw_subsets

draws = run.profile.label_efficiency.draws
subsets = draw_subsets(labels, few, draws, seed)  # (K, n)
np.testing.assert_array_equal(subset, subsets[0])

# %% [markdown]
# ## A probe that sees nothing else
#
# The probe of [chapter 06](06_clinical_transfer) has one number to choose, the strength of its penalty.
# With all labels it is chosen on the validation split. With a share of the labels that would be
# cheating: a hospital that has labelled thirty X-rays does not have hundreds of labelled ones for
# validation. So the strength is chosen by five-fold cross-validation among the few labels
# themselves, and the validation split is not touched. By hand, with scikit-learn, for the label that is
# most evenly split in this draw:

# %%
from sklearn.linear_model import LogisticRegression

from pacx.evaluation.baselines import features_of
from pacx.training.probe import FOLDS, STRENGTHS

c = np.nanargmin(np.abs(np.nanmean(labels[subset], axis=0) - 0.5))
y, x = labels[subset, c], features_of(run, shown, "pacx", "train", "cls")
x = x[subset].astype(float)
z = (x - x.mean(0)) / x.std(0)  # CLS tokens, standardised: (n, D)
known = ~np.isnan(y)
z, y = z[known], y[known]
# Each class is dealt out to the folds in turn.
dealt = np.where(y == 1, np.cumsum(y == 1), np.cumsum(y == 0)) % FOLDS


# %%
def regression(strength, rows):
    model = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
    return model.fit(z[rows], y[rows])


def loss(strength):
    """Mean log loss of each case under a probe that has not seen it."""
    logits = np.empty(len(y))
    for fold in range(FOLDS):
        model = regression(strength, dealt != fold)
        logits[dealt == fold] = model.decision_function(z[dealt == fold])
    return np.logaddexp(0, np.where(y == 1, -logits, logits)).mean()


best = min(STRENGTHS, key=loss)
by_hand = regression(best, dealt >= 0).predict_proba(z)[:, 1]

# %% [markdown]
# The library fits all draws and labels at once, with another solver and 32-bit weights. Its probe of this
# draw and label gives the same probabilities to within a thousandth:

# %%
from pacx.evaluation.transfer import train_probes

library = train_probes(run, shown, "pacx", fraction=few)
probabilities = library.probabilities(x[known])[0, :, c]
np.testing.assert_allclose(probabilities, by_hand, rtol=0, atol=1e-3)

# %% [markdown]
# {term}`The paper's probe` is different: it keeps the epoch with the best AUROC on the whole validation
# split. In this chapter it is shown only where the paper's numbers stand beside ours. There it has seen
# more labels than its share suggests, as the paper's had.
#
# ## Does the gain grow as labels become fewer?
#
# The paper's claim is a pattern: the fewer the labels, the larger the gain. So the first result is not the
# gain but its change. A gain is the AUROC of PaCX-MAE minus that of the MAE, each the mean over the draws.
# The probes of both encoders are trained on the same draws, so that sampling luck cancels in their
# difference, and the intervals resample *test patients*, as in [chapter 06](06_clinical_transfer). Every
# data set is read from the CLS token and from the mean of the patches by the converged probe, and from the
# CLS token by the paper's probe as well.

# %%
from itertools import product

import pandas as pd

from pacx.errors import PacxError
from pacx.evaluation.transfer import compare_probes

readings = [("converged", "cls"), ("converged", "mean"), ("paper", "cls")]
parts, gaps = [], []
for (name, dataset, counted), f in product(data, fractions):
    part = {"tasks": counted, "fraction": f}
    try:
        for probe, pooling in readings:
            part |= {"probe": probe, "pooling": pooling}
            scores = compare_probes(run, dataset, models, **part)
            parts.append(scores.assign(dataset=name))
    except PacxError as error:
        gaps.append({"data set": name, "fraction": f, "gap": str(error)})

# %% [markdown]
# The last column is the gain at the smallest share minus the gain at the largest. The claim's pattern
# is there only where its interval lies above zero. The first row of each reading averages the data sets that
# could be cut at every share.

# %%
from pacx.evaluation.statistics import interval
from pacx.evaluation.transfer import macro_score
from pacx.figures.tables import POOLING_NAMES, show

gapped = {gap["data set"] for gap in gaps}
whole = [d for d in data if d[0] not in gapped]


def gain(dataset, tasks, fraction, pooling):
    """PaCX-MAE minus MAE: the value, then that of each resample."""
    reading = {"tasks": tasks, "fraction": fraction, "pooling": pooling}
    scores = (macro_score(run, dataset, m, **reading) for m in models)
    theirs, ours = map(np.hstack, scores)
    return ours - theirs


# %%
rows = []
for pooling, read in POOLING_NAMES.items():
    gains = {}
    for name, dataset, counted in whole:
        gains[name] = [gain(dataset, counted, f, pooling) for f in (few, most)]
    gains = {"mean": np.mean([*gains.values()], axis=0), **gains}
    for name, (at_few, at_most) in gains.items():
        change = f"{few:.0%} minus {most:.0%}"
        columns = {f"gain at {few:.0%}": at_few, f"gain at {most:.0%}": at_most}
        columns[change] = at_few - at_most
        row = {k: str(interval(v[0], v[1:])) for k, v in columns.items()}
        rows.append({"read from": read, "data set": name, **row})
show(pd.DataFrame(rows))

# %% [markdown]
# ## The curves
#
# Where a share is too small to hold every class, the library refuses to draw, and the table has a gap
# with its reason instead of a number that means something else.

# %%
show(pd.DataFrame(gaps or [{"gap": "none: every share could be drawn"}]))

# %% [markdown]
# Dots and bands are this run's, by the converged probe: left from the CLS token, right from the mean of the
# patches. Note that each panel has a scale of its own. The hollow diamonds are the paper's numbers for the
# data sets that it cuts, read from the CLS token by the paper's probe. They are from real patients and a
# larger encoder: only the slope, and the gap between the two colours, may be compared.

# %% mystnb={"image": {"alt": "AUROC against the share of training labels on a logarithmic axis, one row of panels a data set, the CLS token left and the mean of patches right, MAE and PaCX-MAE with 95 percent bands over test patients; the paper's points are hollow diamonds."}}
from pacx.evaluation.paper import published
from pacx.figures.results import label_efficiency

table = pd.concat(parts, ignore_index=True)
converged = table[table["probe"] == "converged"]
short = converged["pooling"].map({"cls": "CLS token", "mean": "patches"})
panels = converged.assign(panel=converged["dataset"] + ", " + short)
theirs = published("label_efficiency")
theirs["panel"] = theirs["dataset"].str.lower() + ", CLS token"
_ = label_efficiency(panels, panels="panel", published=theirs)

# %% [markdown]
# The paired difference at each share:

# %% mystnb={"image": {"alt": "Forest plots of PaCX-MAE minus MAE, one panel a share of labels, one row a data set, with 95 percent intervals around zero; filled dots are the CLS token, hollow dots the mean of patches."}}
from pacx.figures.results import forest_panels

x_label = "difference in AUROC, PaCX-MAE minus MAE"


def gains_at_shares(results, rows):
    gains = results[results["model"] == "pacx"].sort_values("fraction")
    share = gains["fraction"].map("{:.0%} of labels".format)
    read = gains["pooling"].map(POOLING_NAMES)
    gains = gains.assign(share=share, read=read)
    look = {"panels": "share", "filled": "read", "x_label": x_label}
    return forest_panels(gains, rows=rows, **look)


_ = gains_at_shares(converged, "dataset")

# %% [markdown]
# A mean can hide that one task gained and another lost. So here is each label of the data set that was
# drawn by hand (on phantoms, each physiology task), at the smallest share and at the largest:

# %% mystnb={"image": {"alt": "Forest plots of PaCX-MAE minus MAE, one row a task, one panel for the smallest share of labels and one for the largest, with 95 percent intervals around zero; filled dots are the CLS token, hollow dots the mean of patches."}}
alone = []
for task, f, pooling in product(tasks, (few, most), POOLING_NAMES):
    part = {"tasks": [task], "fraction": f, "pooling": pooling}
    alone.append(compare_probes(run, shown, models, **part))
by_task = pd.concat(alone, ignore_index=True)
everything = pd.concat([table, by_task], ignore_index=True)
_ = run.save_results("label_efficiency", everything)
_ = gains_at_shares(by_task, "task")

# %% [markdown]
# ## Single draws differ by chance
#
# Each dot below is one draw of training labels from the same data set, scored on all test patients: the mean
# AUROC over its labels.

# %%
from pacx.evaluation.statistics import macro_auroc
from pacx.evaluation.transfer import probe_scores
from pacx.figures.style import name_of

columns = [shown.labels.index(task) for task in tasks]
answers = labels_of(shown, "test")[:, columns]
once = np.ones((1, len(answers)))
dots = []
for pooling, model, f in product(POOLING_NAMES, models, fractions):
    part = {"fraction": f, "pooling": pooling}
    for draw in probe_scores(run, shown, model, **part)[:, :, columns]:
        auroc = macro_auroc(answers, draw, once)[0]
        dots.append([POOLING_NAMES[pooling], name_of(model), f"{f:.0%}", auroc])
dots = pd.DataFrame(dots, columns=["read", "model", "share", "AUROC"])

# %% mystnb={"image": {"alt": "AUROC of every single draw of training labels on one data set, MAE and PaCX-MAE side by side, one column for each share of the labels; left panel from the CLS token, right panel from the mean of patches."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from pacx.book.privacy import declare
from pacx.figures.style import colour_of, marker_of

figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.4), sharey=True)
for axis, (read, own) in zip(axes, dots.groupby("read", sort=False), strict=True):
    for k, model in enumerate(models):
        one = own[own["model"] == name_of(model)]
        place = one["share"].map([*dots["share"].unique()].index) + 0.32 * k - 0.16
        look = {"color": colour_of(model), "alpha": 0.6, "label": name_of(model)}
        axis.plot(place, one["AUROC"], marker_of(model), **look)
    axis.set_xticks(range(len(fractions)), dots["share"].unique())
    axis.set(xlabel="share of training labels", title=read)
axes[0].set_ylabel(f"AUROC on {shown.name}")
axes[0].legend()
_ = declare(run, figure)

# %% [markdown]
# So a share is judged by the mean over draws; the profile says how many (`label_efficiency.draws`).
#
# ## Beside the paper
#
# The same numbers, from the CLS token, by the converged probe and by the paper's. The paper's values with
# fewer than all labels were read off its figure.

# %%
from pacx.figures.tables import beside_the_paper

show(beside_the_paper(table, "label_efficiency"))

# %% [markdown]
# ## Beside the evidence
#
# PaCX-MAE minus MAE by the converged probe, in this run and with the demo's settings on nine fresh cohorts
# of **phantom** patients, with one training on each ([how](../book/protocol)). First the averages from the
# CLS token, then in both readings, and each task alone:

# %% mystnb={"image": {"alt": "One row a result, below its name: the difference in each fresh cohort as small dots, that of this run as a triangle, and the mean of the cohorts with a 95 percent interval as a diamond, around a line at zero."}}
from pacx.figures.components import cohorts_beside
from pacx.figures.tables import beside_the_evidence, folded

_ = cohorts_beside(converged.query("pooling == 'cls'"), "label_efficiency")
beside_the_evidence(converged, "label_efficiency")

# %%
evidence = beside_the_evidence(by_task, "label_efficiency")
folded(evidence, "Each task alone")

# %% [markdown]
# ## Check it yourself

# %%
# Every draw has the promised size and no row twice.
assert subsets.shape == (draws, round(few * len(labels)))
assert all(len(set(rows)) == n for rows in subsets)

# Every label keeps a positive and a negative, if there is one at all.
for rows, value in product(subsets, (0, 1)):
    kept, there = ((y == value).any(0) for y in (labels[rows], labels))
    np.testing.assert_array_equal(kept, there)

# More labels do not hurt: the mean AUROC over encoders, poolings and data sets
# that could be cut at every share rises from the smallest share to the largest.
judged = converged[~converged["dataset"].isin(gapped)]
means = judged.groupby("fraction")["value"].mean()
assert means[most] > means[few] - 0.02

# %% [markdown]
# Exercise 3: the formula agrees with 1,000 plain subsets to within four standard errors, and to within two
# of the subsets where the probability is almost 0 or 1.

# %%
from scipy.stats import hypergeom

rarest = np.nansum(labels, axis=0).argmin()
positive = labels[:, rarest] == 1
missing = hypergeom.pmf(0, len(labels), positive.sum(), n)
rng = np.random.default_rng(0)
plain = (rng.choice(positive, n, replace=False) for _ in range(1000))
share = np.mean([not found.any() for found in plain])
error = np.sqrt(missing * (1 - missing) / 1000)
assert abs(share - missing) <= 4 * error + 0.002
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# With few labels, the draw must keep every class, and the probe may look at nothing else; both were written
# out by hand and agree with the library's. Whether PaCX-MAE gains more where labels are few is answered by
# the last column of the first table of results: only where it lies above zero has this run shown the
# paper's pattern. The tasks one by one and the spread of single draws show what the averages hide.
#
# ## Exercises
#
# 1. A share can be too small for VinDr-CXR and large enough for CheXchoNet. Why?
#
# ```{dropdown} Answer
# VinDr-CXR has 19 labels, and a draw must hold a positive and a negative of each. A handful of images
# cannot. CheXchoNet has one label: two images are enough.
# ```
#
# 2. Suppose that the draws at the smallest share lie further apart than the band is wide. Is that a
#    contradiction?
#
# ```{dropdown} Answer
# No. The band shows how the *mean over draws* varies with other test patients. The dots show how
# one draw varies with other training labels. A hospital that labels once gets one dot.
# ```
#
# 3. How often does a plain random subset of `n` images hold no positive of the rarest label in `labels`? Give
#    the probability, and check it with 1,000 subsets.
#
# ```{dropdown} Answer
# The number of positives in a subset drawn without replacement has a hypergeometric distribution:
#
#     rarest = np.nansum(labels, axis=0).argmin()
#     positive = labels[:, rarest] == 1
#     missing = hypergeom.pmf(0, len(labels), positive.sum(), n)
#     rng = np.random.default_rng(0)
#     plain = (rng.choice(positive, n, replace=False) for _ in range(1000))
#     missing, np.mean([not found.any() for found in plain])
# ```
#
# ## Next
#
# Every probe needs some labels. [Chapter 08](08_alignment) needs none: does an X-ray find its own ECG?
#
# ## References
#
# The method: {cite:p}`liu2026pacx`. The data sets: {cite:p}`bhave2024chexchonet`,
# {cite:p}`elsharief2025medmod`, {cite:p}`nguyen2022vindr`, {cite:p}`wang2017chestxray8`,
# {cite:p}`jaeger2014shenzhen`.
