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
# # Alignment without labels
#
# Can the embedding of an X-ray find the ECG and the blood tests of the same patient, by a ridge regression
# that is fitted on pairs and sees no label? The paper calls this {term}`zero-shot`; in the usual sense it is
# not, since the regression learns from training pairs.
#
# Reading time: about 11 minutes.

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
# - How {term}`Ridge regression` turns "does the encoder know what the teacher knows?" into a
#   number, written out on this run's pairs.
# - Why a {term}`Cosine similarity` must be centred before it means anything.
# - What retrieval ({term}`R@5`) can say with a few hundred patients, and what it cannot.
# - Three ways to tell a score from chance: random pairs, a permutation test, and shuffled distillation.
# - How much of the answer depends on reading the CLS token or the mean of the patches.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | paired admissions | train and test pairs | [chapter 01](01_cohort) |
# | teachers and their {term}`embedding`s | the targets | [chapter 03](03_lab_autoencoder), [chapter 04](04_ecg_teacher) |
# | distillation | its loss pulls towards these very targets | [chapter 05](05_distillation) |
#
# Distillation has seen the *train* pairs. All scores here are on *test* pairs, whose patients took part
# in no training.

# %%
from pacx.training.pipeline import train_encoders, train_side_by_side

controls = ["pacx-shuffled", "pacx-untrained"]
models = ["random", "mae", "pacx", *controls]
train_encoders(run, "mae", "pacx")
train_side_by_side(run, *controls)

# %% [markdown]
# ## A linear map from X-ray to teacher
#
# Let the row $h_i$ be the frozen embedding of X-ray $i$, its CLS token or the mean of its patches,
# $\tilde h_i$ the same after standardising each of its numbers with the mean and standard deviation of the
# train pairs, and $t_i$ the teacher's embedding of the same admission. Ridge regression finds
#
# $$W, b = \arg\min_{W, b} \sum_{i \in \text{train}} \lVert t_i - \tilde h_i W - b \rVert^2
# + \kappa \lVert W \rVert^2 ,$$
#
# where $\kappa$ is the penalty. With the $\tilde h_i$ and $t_i$ of the train pairs as the rows of $Z$ and
# $T$, the minimum has a closed form: $b$ is the mean of the $t_i$, and
#
# $$W = (Z^\top Z + \kappa I)^{-1} Z^\top (T - b) .$$
#
# The prediction $\hat t_i = \tilde h_i W + b$ is the embedding of the ECG (or the labs) that the X-ray
# suggests.

# %%
import numpy as np

from pacx.data.datasets import load_pairs, teachers_of
from pacx.evaluation.features import extract_features
from pacx.training.distill import teacher_embeddings

targets = teachers_of(run)
pairs = {s: load_pairs(run, s) for s in ("train", "test")}
h = {s: extract_features(run, "pacx", pairs[s].cxr) for s in pairs}
t = {s: teacher_embeddings(run, pairs[s]) for s in pairs}
teacher = targets[0]
known, wanted = (t[s][teacher] for s in pairs)

# %%
kappa = 10
mean, spread = h["train"].cls.mean(0), h["train"].cls.std(0)
Z, Z_test = ((h[s].cls.astype(float) - mean) / spread for s in pairs)
b = known.mean(0)
square = Z.T @ Z + kappa * np.eye(Z.shape[1])
W = np.linalg.solve(square, Z.T @ (known - b))  # (D, D of the target)
predicted = Z_test @ W + b

# %% [markdown]
# The library fits the same map with scikit-learn, in 32-bit numbers: the predictions agree to within a
# thousandth of the targets' spread.

# %%
from pacx.evaluation.alignment import ridge_alignment

train, test = (h["train"].cls, known), (h["test"].cls, wanted)
library = ridge_alignment(*train, *test, alpha=kappa)
close = {"rtol": 0, "atol": 1e-3 * wanted.std()}
np.testing.assert_allclose(library.prediction, predicted, **close)

# %% [markdown]
# ## Two scores
#
# **Cosine.** $b$, the mean of the targets of the train pairs, is known without any test patient. Centred on
# $b$, the score is the mean over the test pairs of
#
# $$\cos(\hat t_i - b,\; t_i - b).$$
#
# **Retrieval.** Each X-ray ranks the ECGs of all test patients by their centred cosine to $\hat t_i$. R@k is
# the share of X-rays whose own ECG is among the first $k$. Both by hand, from the library's prediction:


# %%
def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


similarity = unit(library.prediction - b) @ unit(wanted - b).T  # X-ray i, ECG j
cosines = np.diag(similarity)
ranks = (similarity >= cosines[:, None]).sum(1)  # 1: the own ECG is the nearest

np.testing.assert_allclose(similarity, library.similarity, atol=1e-5)

# %% [markdown]
# From here on the library does this for each teacher and pooling. Why centre? Where the embeddings of all
# patients point in similar directions, predicting their mean for every patient scores high. The paper's
# public code centres the cosine on the mean of the *test* targets, and ranks by the cosine that is not
# centred. The table has the cosine and R@5 in all three ways; `random` is the mean cosine between the target
# of one test patient and that of another.

# %%
from itertools import product

import pandas as pd

from pacx.evaluation.alignment import own_ranks
from pacx.figures.tables import POOLING_NAMES, show

aligned, rows = {}, []
for teacher, pooling in product(targets, POOLING_NAMES):
    train, test = ((getattr(h[s], pooling), t[s][teacher]) for s in pairs)
    scores = aligned[teacher, pooling] = ridge_alignment(*train, *test)
    row = {"target": teacher, "pooling": pooling}
    row["cosine, not centred"] = scores.cosine_raw
    row["random, not centred"] = scores.random_raw
    row["cosine, test mean"] = scores.cosine_centred
    row["cosine, train mean"] = np.diag(scores.similarity).mean()
    row["R@5, not centred"] = scores.recall[5]
    row["R@5, train mean"] = (own_ranks(scores.similarity) <= 5).mean()
    rows.append(row)
show(pd.DataFrame(rows))

# %% [markdown]
# R@k against $k$, with a 95 % interval of the share at each $k$. By chance it is $k/N$ among $N$ test
# patients: the dashed line.

# %% mystnb={"image": {"alt": "Two panels, CLS token and mean of patches: share of test X-rays whose own ECG or labs are among the k nearest, against k, for PaCX-MAE, with 95 percent bands; the dashed line is chance."}} tags=["hide-input"]
import matplotlib.pyplot as plt
from scipy.stats import binomtest

from pacx.book.privacy import declare
from pacx.figures.style import COLOURS

look = {"ecg": ("ECG", "-", COLOURS["brown"]), "labs": ("labs", ":", COLOURS["green"])}
n = len(pairs["test"].table)
k = np.arange(1, n + 1)
figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.4), sharey=True)
for (teacher, pooling), scores in aligned.items():
    axis, (label, style, colour) = axes[list(POOLING_NAMES).index(pooling)], look[teacher]
    own = own_ranks(scores.similarity)
    hits = [int((own <= i).sum()) for i in k]
    bands = np.array([binomtest(hit, n).proportion_ci(method="wilson") for hit in hits])
    axis.fill_between(k / n, *bands.T, color=colour, alpha=0.15, linewidth=0)
    axis.plot(k / n, np.array(hits) / n, style, color=colour, label=label)
    axis.set(xlabel="k, as a share of the test patients", title=POOLING_NAMES[pooling])
for axis in axes:
    axis.plot([0, 1], [0, 1], "--", color="0.5", label="chance")
axes[0].set_ylabel("R@k: share found among the k nearest")
axes[1].legend()
_ = declare(run, figure)

# %% [markdown]
# ## All encoders
#
# Two of the encoders are {term}`controls <control>`. `pacx-shuffled` is distilled with the same teachers, but
# every X-ray got the ECG and labs of another patient: if it aligned as well as `pacx`, the pairs would carry
# nothing. `pacx-untrained` has the right pairs and teachers of random weights. The target here is the trained
# teacher, which was not used to train `pacx-untrained`.

# %%
from pacx.evaluation.alignment import compare_alignment

table = pd.concat(
    [
        compare_alignment(run, models, teacher, pooling=pooling)
        for teacher, pooling in aligned
    ],
    ignore_index=True,
)  # fmt: skip
_ = run.save_results("alignment", table)
shown = table.replace({"target": {"ecg": "ECG"}})
shown["read"] = shown["pooling"].map(POOLING_NAMES)
cosine = shown[shown["metric"] == "cosine"]

# %% [markdown]
# The differences in centred cosine from the MAE read in the same way, on the same resampled patients:

# %% mystnb={"image": {"alt": "Two forest plots, ECG and labs: difference in centred cosine from the MAE for random weights, PaCX-MAE, shuffled pairs and untrained teachers, with 95 percent intervals; filled dots are the CLS token, hollow dots the mean of patches."}}
from pacx.figures.results import dots, forest_panels

label = "difference in centred cosine, model minus MAE"
others = cosine[cosine["model"] != "mae"]
_ = forest_panels(others, panels="target", filled="read", x_label=label)

# %% [markdown]
# Is a cosine more than chance? Two comparisons. *Random pairs*: the mean cosine over all ways to shuffle the
# pairs. *Permutation test*: how often, among all these ways, is the mean as high as with the true pairs? For
# hundreds of pairs their distribution is normal, with a spread that is known {cite:p}`hoeffding1951combinatorial`, so
# no number of shuffles bounds the p-value from below.

# %%
from pacx.figures.tables import in_words

noise = in_words(cosine, "target", "pooling")
noise["random pairs"] = cosine["chance"].map("{:.3f}".format)
noise["permutation p"] = cosine["p"].map("{:.1e}".format)
names = {
    "score [95 %]": "cosine [95 %]",
    "difference [95 %]": "minus MAE [95 %]",
}
show(noise.rename(columns=names))

# %% [markdown]
# The same cosines as a picture, with random pairs at zero:

# %% mystnb={"image": {"alt": "Two panels, CLS token and mean of patches: centred cosine between predicted and true teacher embedding for each encoder, ECG and labs, with 95 percent bootstrap intervals."}}
panel = "centred cosine, " + cosine["read"]
_ = dots(cosine.assign(panel=panel), rows="target", panels="panel", chance=0)

# %% [markdown]
# ## Retrieval, with its interval
#
# R@5 is a share of patients, so its interval is that of a share {cite:p}`wilson1927probable`. In the paper's
# table, a step of one patient in 464 is a step of two thousandths, and MAE and PaCX-MAE differ by two
# patients for the ECG and by none for the labs. Look at how wide the intervals are before you compare
# two encoders. All encoders rank the same patients: the fold below the figure compares each with the MAE on
# those that only one of the two finds (McNemar's exact test).

# %% mystnb={"image": {"alt": "Two panels, CLS token and mean of patches: share of X-rays whose own ECG or labs are among the five nearest, with Wilson 95 percent intervals and the chance level as a dashed line, for each encoder."}}
fives = shown[shown["metric"] == "R@5"]
chance = fives["chance"].iloc[0]
fives = fives.assign(panel="R@5, " + fives["read"])
_ = dots(fives, rows="target", panels="panel", chance=chance)

# %%
from pacx.figures.tables import folded

recall = shown[shown["metric"].str.startswith("R@")]
recall = recall.astype({"hits": int, "pairs": int})
facts = ["target", "pooling", "metric", "hits", "pairs", "chance"]
hits = in_words(recall, *facts)
hits["McNemar's p"] = recall["difference_p"]
folded(show(hits), "All hits, at three cut-offs")

# %% [markdown]
# ## Beside the paper
#
# The paper centres on the mean of the test targets, and its public code ranks by the raw cosine
# ([more](../book/paper_and_code)); this run's rows centre both on the mean of the train targets. What this
# changes stands in the table under *Two scores*. The paper's teachers and patients are real,
# while a phantom run's are not: compare the order of the models, not the values. The paper reads the CLS
# token.

# %%
from pacx.figures.components import cohorts_beside
from pacx.figures.tables import beside_the_evidence, beside_the_paper

show(beside_the_paper(table, "alignment"))

# %% [markdown]
# ## Beside the evidence
#
# The demo's settings on nine fresh cohorts of **phantom** patients, with one training on each
# ([how](../book/protocol)), read from the CLS token:

# %% mystnb={"image": {"alt": "One row a result, below its name: the difference in each fresh cohort as small dots, that of this run as a triangle, and the mean of the cohorts with a 95 percent interval as a diamond, around a line at zero."}}
cls = (table["metric"] == "cosine") & (table["pooling"] == "cls")
_ = cohorts_beside(table[cls & (table["model"] == "pacx")], "alignment")
beside_the_evidence(table[cls], "alignment")

# %% [markdown]
# ## Check it yourself

# %%
# No patient of the distillation is among the test pairs.
distilled, unseen = (set(pairs[s].table["patient"]) for s in pairs)
assert not distilled & unseen

# A perfect prediction ranks every own target first, with a cosine of one.
rng = np.random.default_rng(0)
x, w = rng.normal(size=(400, 8)), rng.normal(size=(8, 6))
y = x @ w
perfect = ridge_alignment(x[:300], y[:300], x[300:], y[300:], alpha=1e-6)
assert perfect.cosine_centred > 0.999
assert perfect.recall[1] == 1.0

# %% [markdown]
# Random pairs score about zero once both sides are centred. With $s$ the root mean square of the centred
# cosine between two different test targets, the mean over $N$ random pairs has a standard error of
# $s / \sqrt{N}$; four of them are allowed. Centring itself shifts the mean: $N$ vectors that sum to zero have
# a mean cosine of about $-1 / (N - 1)$.

# %%
for (teacher, pooling), scores in aligned.items():
    centred = unit(t["test"][teacher] - t["test"][teacher].mean(0))
    others = (centred @ centred.T)[~np.eye(n, dtype=bool)]
    bound = 4 * np.sqrt(np.mean(others**2) / n) + 1 / (n - 1)
    assert abs(scores.random_centred) <= bound, (teacher, pooling)

# %% [markdown]
# Exercise 3: the patients found by one encoder alone account for the whole difference in hits.


# %%
def found(model, teacher):
    x = {s: extract_features(run, model, pairs[s].cxr).cls for s in pairs}
    train, test = ((x[s], t[s][teacher]) for s in pairs)
    return own_ranks(ridge_alignment(*train, *test).similarity) <= 5


ours, theirs = (found(model, targets[0]) for model in ("pacx", "mae"))
gained, lost = (ours & ~theirs).sum(), (theirs & ~ours).sum()
rows = table[(table["metric"] == "R@5") & (table["target"] == targets[0])]
hits = rows[rows["pooling"] == "cls"].set_index("model")["hits"]
assert gained - lost == hits["pacx"] - hits["mae"]
by_hand = binomtest(int(gained), int(gained + lost)).pvalue if gained + lost else 1
assert by_hand == rows[rows["pooling"] == "cls"].set_index("model")["difference_p"]["pacx"]
assert binomtest(2, 2).pvalue == 0.5
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# Without any label, a ridge regression from an X-ray's embedding to a teacher's embedding shows how far the
# X-ray finds the ECG and the blood tests of its patient: the table of cosines has each encoder beside
# random pairs, and the table of hits has R@5 beside chance. PaCX-MAE has gained something only where its
# difference from the MAE, read in the same way, lies above zero, and the pairs and the teachers' training
# explain the gain only where the two controls stay behind. Such a gain alone shows little, since
# distillation was trained towards these very targets.
#
# ## Exercises
#
# 1. The regression loss of stage 2 is a cosine to these targets. Is a higher cosine after
#    distillation evidence of more physiology?
#
# ```{dropdown} Answer
# The higher cosine shows that what was trained on train pairs holds for new patients. This test is close to
# the training objective, so it is the weakest of the tests. A probe for a disease that improves is stronger
# evidence, because no loss mentions the disease.
# ```
#
# 2. The published R@5 for the ECG is 24 hits of 464 with the MAE and 26 with PaCX-MAE. How many more hits
#    than 25 would an encoder need before its R@5 is clearly higher?
#
# ```{dropdown} Answer
# About 16 if the two sets of hits were independent: 41 against 25 of 464. Both encoders rank the same
# patients, so a paired test (McNemar's) on those that only one of them finds can need fewer. Even
# if PaCX-MAE found every patient that the MAE finds, the two hits of the published table have p = 0.5 in that
# test: they cannot be told from noise.
# ```
#
# 3. Write this paired test for the first teacher of this run: count the patients whose own ECG is among the
#    five nearest with PaCX-MAE but not with the MAE, and the other way round, and test whether the two counts
#    differ.
#
# ```{dropdown} Answer
# If the encoders were equally good, each of these patients would be found by either of them with
# probability one half. So McNemar's exact test is a binomial test. (It has no answer if both counts are 0.)
#
#     def found(model, teacher):
#         x = {s: extract_features(run, model, pairs[s].cxr).cls for s in pairs}
#         train, test = ((x[s], t[s][teacher]) for s in pairs)
#         return own_ranks(ridge_alignment(*train, *test).similarity) <= 5
#
#     ours, theirs = (found(model, targets[0]) for model in ("pacx", "mae"))
#     gained, lost = (ours & ~theirs).sum(), (theirs & ~ours).sum()
#     gained, lost, binomtest(int(gained), int(gained + lost)).pvalue
# ```
#
# ## Next
#
# [Chapter 09](09_components) takes the method apart and asks which part explains a gain.
#
# ## References
#
# The method: {cite:p}`liu2026pacx`. The pairs: {cite:p}`saporta2024symile`. Intervals of shares:
# {cite:p}`wilson1927probable`. The permutation test: {cite:p}`hoeffding1951combinatorial`.
