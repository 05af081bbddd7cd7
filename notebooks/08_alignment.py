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
# # Zero-shot alignment
#
# No label at all, or {term}`zero-shot`: can the embedding of an X-ray find the ECG and the blood tests
# of the same patient?

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
# - How {term}`Ridge regression` turns "does the encoder know what the teacher knows?" into a
#   number.
# - Why a {term}`Cosine similarity` must be centred before it means anything.
# - What retrieval ({term}`R@5`) says with a few hundred patients, and what it cannot say.
# - Three yardsticks for chance: random pairs, a permutation test, and shuffled distillation.
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
# Distillation has seen the *train* pairs. All scores here are on *test* pairs, patients that no
# stage has met.

# %%
from pacx.training.pipeline import train_encoders, train_side_by_side

controls = ["pacx-shuffled", "pacx-untrained"]
models = ["random", "mae", "pacx", *controls]
train_encoders(run, "mae", "pacx")
train_side_by_side(run, *controls)

# %% [markdown]
# ## A linear bridge
#
# Let $h$ be the frozen embedding of an X-ray, its CLS token or the mean of its patches, $\tilde h$ the
# same after each of its numbers was standardised with the mean and standard deviation of the train pairs,
# and $t$ the teacher's embedding of the same admission. Ridge regression finds
#
# $$W, b = \arg\min_{W, b} \sum_{i \in \text{train}} \lVert t_i - W \tilde h_i - b \rVert^2
# + \kappa \lVert W \rVert^2 ,$$
#
# and $\hat t = W \tilde h + b$ is what the X-ray says the ECG (or the labs) should look like; $\kappa$ is
# the penalty. With $\bar t$ the mean of the test targets, the score is the mean of
#
# $$\cos(\hat t_i - \bar t,\; t_i - \bar t).$$
#
# Without $\bar t$ the embeddings of different patients already point in similar directions, and
# predicting their mean for everybody scores high. The table below the code shows this trap: look at the
# raw cosine of two targets of different patients.
#
# In the code, `train_features` and `test_features` hold $h$ and `scaler` makes $\tilde h$ of it; the
# targets hold $t$, `ridge` is $W$ and $b$, `alpha` is $\kappa$, `prediction` is $\hat t$, `mean` is
# $\bar t$, and `cosines` are the scores whose mean is taken.

# %% tags=["remove-input"]
from pacx.evaluation.alignment import ridge_alignment
from pacx.figures.source import show_source

show_source(ridge_alignment)

# %%
import pandas as pd

from pacx.data.datasets import load_pairs, teachers_of
from pacx.evaluation.alignment import compare_alignment, ridge_alignment
from pacx.evaluation.features import extract_features
from pacx.figures.tables import POOLING_NAMES, show
from pacx.training.distill import teacher_embeddings

targets = {teacher: {"ecg": "ECG"}.get(teacher, teacher) for teacher in teachers_of(run)}
train, test = (load_pairs(run, split) for split in ("train", "test"))
known, unseen = (extract_features(run, "pacx", part.cxr) for part in (train, test))
aligned = {
    (target, pooling): ridge_alignment(
        getattr(known, pooling),
        teacher_embeddings(run, train)[target],
        getattr(unseen, pooling),
        teacher_embeddings(run, test)[target],
    )
    for target in targets
    for pooling in POOLING_NAMES
}
one_model = [
    {
        "PaCX-MAE to": targets[target],
        "pooling": pooling,
        "cosine, raw": scores.cosine_raw,
        "raw, two random targets": scores.random_raw,
        "cosine, centred": scores.cosine_centred,
        "centred, two random targets": scores.random_centred,
    }
    for (target, pooling), scores in aligned.items()
]
show(pd.DataFrame(one_model))

# %% [markdown]
# Retrieval ranks all test patients by the raw cosine (not centred, as in the public code) between
# $\hat t_i$ and their embedding. R@k is the share whose own is among the first $k$, with a 95 % interval
# of that share at each $k$. By chance it is $k/N$: the dashed line.

# %% mystnb={"image": {"alt": "Two panels, CLS token and mean of patches: share of test X-rays whose own ECG or labs are among the k nearest, against k, for PaCX-MAE, with 95 percent bands; the dashed line is chance."}} tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binomtest

from pacx.figures.style import colour_of, name_of

n = len(test.table)
figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.4), sharey=True)
k = np.arange(1, n + 1)
for (target, pooling), scores in aligned.items():
    axis, style = axes[list(POOLING_NAMES).index(pooling)], "-" if target == "ecg" else ":"
    hits = [int((scores.ranks <= i).sum()) for i in k]
    bands = [binomtest(hit, n).proportion_ci(method="wilson") for hit in hits]
    low, high = [band.low for band in bands], [band.high for band in bands]
    axis.fill_between(k / n, low, high, color=colour_of("pacx"), alpha=0.15, linewidth=0)
    label = f"PaCX-MAE, {targets[target]}"
    axis.plot(k / n, np.array(hits) / n, style, color=colour_of("pacx"), label=label)
for axis, read in zip(axes, POOLING_NAMES.values(), strict=True):
    axis.plot([0, 1], [0, 1], "--", color="0.5", label="chance")
    axis.set(xlabel="k, as a share of the test patients", title=read)
axes[0].set_ylabel("R@k: share found among the k nearest")
_ = axes[1].legend()

# %% [markdown]
# ## All encoders
#
# Two are controls. `pacx-shuffled` is distilled with the same teachers, but every X-ray got somebody
# else's ECG and labs: if it aligned as well as `pacx`, the pairs would carry nothing.
# `pacx-untrained` has the right pairs and teachers of random weights. The target here is the trained
# teacher, which it has never met.

# %%
table = pd.concat(
    [
        compare_alignment(run, models, target, pooling=pooling)
        for target in targets
        for pooling in POOLING_NAMES
    ],
    ignore_index=True,
)
_ = run.save_results("alignment", table)
cosine = table[table["metric"] == "cosine"]
shown = table.assign(read=table["pooling"].map(POOLING_NAMES)).replace({"target": targets})
shown_cosine = shown[shown["metric"] == "cosine"]

# %% mystnb={"image": {"alt": "Two panels, CLS token and mean of patches: centred cosine between predicted and true teacher embedding for each encoder, ECG and labs, with 95 percent bootstrap intervals."}} tags=["hide-input"]
from pacx.figures.results import dots, forest_panels

panel = "centred cosine, " + shown_cosine["read"]
_ = dots(shown_cosine.assign(panel=panel), rows="target", panels="panel", chance=0)

# %% [markdown]
# The differences in centred cosine from the MAE, on the same resampled patients, each encoder against the
# MAE read in the same way:

# %% mystnb={"image": {"alt": "Two forest plots, ECG and labs: difference in centred cosine from the MAE for random weights, PaCX-MAE, shuffled pairs and untrained teachers, with 95 percent intervals; filled dots are the CLS token, hollow dots the mean of patches."}} tags=["hide-input"]
_ = forest_panels(
    shown_cosine[shown_cosine["model"] != "mae"],
    panels="target",
    filled="read",
    x_label="difference in centred cosine, model minus MAE",
)

# %% [markdown]
# Is a cosine more than noise? Two yardsticks. *Random pairs*: the mean cosine after giving each
# prediction the target of somebody else. *Permutation test*: how often, among many such shuffles,
# is the mean as high as with the true pairs? Its p-value cannot go below one over the number of
# shuffles plus one.

# %% tags=["hide-input"]
from pacx.figures.tables import beside_the_paper, folded, in_words

noise = in_words(shown_cosine, "target", "pooling").assign(
    **{"random pairs": cosine["chance"].round(3), "permutation p": cosine["p"].round(3)}
)
show(
    noise.rename(columns={"score [95 %]": "cosine [95 %]", "difference [95 %]": "minus MAE [95 %]"})
)

# %% [markdown]
# ## Retrieval, with its interval
#
# R@5 counts patients. So its interval is that of a share {cite:p}`wilson1927probable`. In the paper's
# table, a step of one patient in 464 is a step of two thousandths, and MAE and PaCX-MAE differ by two
# patients for the ECG and by none for the labs. Look at how wide the intervals are before you compare
# two encoders.

# %% mystnb={"image": {"alt": "Two panels, CLS token and mean of patches: share of X-rays whose own ECG or labs are among the five nearest, with Wilson 95 percent intervals and the chance level as a dashed line, for each encoder."}} tags=["hide-input"]
fives = shown[shown["metric"] == "R@5"]
fives = fives.assign(panel="R@5, " + fives["read"])
_ = dots(fives, rows="target", panels="panel", chance=fives["chance"].iloc[0])

# %% tags=["hide-input"]
every = shown[shown["metric"].str.startswith("R@")]
hits_of_all = show(
    pd.DataFrame(
        {
            "target": every["target"],
            "pooling": every["pooling"],
            "model": every["model"].map(name_of),
            "metric": every["metric"],
            "hits": [
                f"{h:.0f} of {p:.0f}" for h, p in zip(every["hits"], every["pairs"], strict=True)
            ],
            "share": every["value"],
            "low": every["low"],
            "high": every["high"],
            "chance": every["chance"],
        }
    )
)
folded(hits_of_all, "All hits, at three cut-offs")

# %% [markdown]
# ## Beside the paper
#
# The paper centres with the mean of the test targets; its public code ranks by the raw cosine
# ([more](../book/paper_and_code)). This chapter does both. The paper's teachers and patients are real,
# ours are not: compare the order of the models, not the height. The paper reads the CLS token.

# %% tags=["remove-input"]
show(beside_the_paper(table, "alignment"))

# %% [markdown]
# ## Beside the evidence
#
# The demo's settings on fresh cohorts of **phantom** patients, with several trainings on each
# ([how](../book/protocol)), read from the CLS token:

# %% tags=["remove-input"]
from pacx.figures.tables import beside_the_evidence

beside_the_evidence(cosine[cosine["pooling"] == "cls"], "alignment")

# %% [markdown]
# ## Check it yourself

# %%
# Our own pairs are test pairs: no patient of the distillation is among them.
assert not set(train.table["patient"]) & set(test.table["patient"])

# A perfect prediction finds everybody at rank one, with a cosine of one.
rng = np.random.default_rng(0)
x, w = rng.normal(size=(400, 8)), rng.normal(size=(8, 6))
perfect = ridge_alignment(x[:300], x[:300] @ w, x[300:], x[300:] @ w, alpha=1e-6)
assert perfect.cosine_centred > 0.999
assert perfect.recall[1] == 1.0

# Random pairs score about zero once both sides are centred. With s the root mean square of the
# centred cosine between two different test targets, the mean over N random pairs has a standard
# error of s / sqrt(N); four of them are allowed. Centring itself shifts the mean: N vectors that sum
# to zero have a mean cosine of about -1 / (N - 1).
for (target, pooling), scores in aligned.items():
    centred = teacher_embeddings(run, test)[target]
    centred = centred - centred.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    others = (centred @ centred.T)[~np.eye(n, dtype=bool)]
    bound = 4 * np.sqrt(np.mean(others**2) / n) + 1 / (n - 1)
    assert abs(scores.random_centred) <= bound, f"{target}, {pooling}: random pairs score more"
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# No label was used: a ridge regression went from frozen X-ray embeddings to the teachers' embeddings. Three
# questions answer the chapter's, and the table has this run's numbers for each of them. Is PaCX-MAE above
# the MAE, read in the same way? Is it above its own controls: do shuffled pairs and untrained teachers stay
# behind? And does its R@5 leave out chance? A yes to the first alone shows little, since the distillation
# was trained towards these very targets. The columns named after models are their centred cosine minus
# the MAE's.

# %% tags=["hide-input"]
from pacx.evaluation.statistics import difference_of

minus = shown_cosine[shown_cosine["model"].isin(["pacx", *controls])]
minus = pd.DataFrame(
    {
        "target": minus["target"],
        "pooling": minus["pooling"],
        "model": minus["model"].map(name_of),
        "minus MAE [95 %]": [str(difference_of(row)) for _, row in minus.iterrows()],
    }
)
found = fives[fives["model"] == "pacx"]
found = found.set_index(["target", "pooling"])[["value", "low", "high", "chance"]]
in_rows = minus.pivot(index=["target", "pooling"], columns="model", values="minus MAE [95 %]")[
    list(minus["model"].unique())
]
in_rows["R@5 of PaCX-MAE [95 %]"] = [
    f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
    for row in found.loc[in_rows.index].itertuples()
]
in_rows["chance"] = found["chance"]
show(in_rows.reset_index().rename_axis(columns=None))

# %% [markdown]
# ## Exercises
#
# 1. The regression loss of stage 2 is a cosine to these targets. Is a higher cosine after
#    distillation evidence of more physiology?
#
# ```{dropdown} Answer
# It shows that what was trained on train pairs holds for new patients. It is close to the training
# objective, so it is the weakest of the tests. That a probe for a disease improves, which no loss
# mentions, is stronger.
# ```
#
# 2. The published R@5 for the ECG is 24 hits of 464 with the MAE and 26 with PaCX-MAE. How many more
#    hits than 25 would an encoder need before its R@5 is clearly above?
#
# ```{dropdown} Answer
# About 16 if the two sets of hits were independent: 41 against 25 of 464. Both encoders rank the same
# patients, so a paired test (McNemar's) on those whom only one of them finds can need fewer. Even
# if the MAE found nobody whom PaCX-MAE misses, the two hits of the published table have p = 0.5 in that
# test: they cannot be told from noise.
# ```
#
# ## Next
#
# [Chapter 09](09_components) takes the method apart and asks which part earns the gain.
#
# ## References
#
# The method: {cite:p}`liu2026pacx`. The pairs: {cite:p}`saporta2024symile`. Intervals of shares:
# {cite:p}`wilson1927probable`.
