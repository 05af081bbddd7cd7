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
# - How training labels are drawn so that no class is lost.
# - What a probe may look at when it has few labels, and what would be cheating.
# - Why one draw is not enough, and how far apart draws are.
# - What distillation is worth when labels are few, from the CLS token and from the mean of the patches,
#   with intervals over patients.
# - Which data sets cannot be cut that small at all.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | {term}`Converged probe`, {term}`AUROC`, {term}`Bootstrap` | the same probes and intervals | [chapter 06](06_clinical_transfer) |
# | distillation | makes `pacx` from `mae` | [chapter 05](05_distillation) |

# %%
from pacx.training.pipeline import train_encoders

models = ["mae", "pacx"]
train_encoders(run, *models)

# %% [markdown]
# ## Few labels, drawn with care
#
# Expert labels are expensive. How good does the probe get with a few of them? A plain random
# sample of a rare disease may hold nobody who has it, and then there is nothing to learn. The draw
# therefore starts with one positive and one negative of every label, and fills the rest at random.

# %% tags=["remove-input"]
from pacx.figures.source import show_source
from pacx.training import probe

show_source(probe._draw)

# %% [markdown]
# ## With few labels, nothing else is looked at
#
# The probe of [chapter 06](06_clinical_transfer) has one number to choose, the strength of its penalty.
# With all labels it is chosen on the validation split. With a share of the labels that would be
# cheating: a hospital that has labelled thirty X-rays does not have hundreds of labelled ones for
# validation. So the strength is chosen by five-fold cross-validation among the few labels
# themselves, and the validation split is not touched. The next cell does this by hand, with
# scikit-learn, for one label of twenty X-rays with the finding and twenty without, and checks that the
# library finds the same probe.

# %%
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pacx.constants import PHYSIOLOGY_TASKS
from pacx.evaluation.baselines import features_of
from pacx.evaluation.transfer import open_benchmark, train_probes
from pacx.training.probe import FOLDS, STRENGTHS, draw_subsets, fit_probes, labels_of

shown = open_benchmark(run, "phantom-truth" if run.is_phantom else run.profile.benchmarks[0])
fractions = run.profile.label_efficiency.fractions
smallest = min(fractions)
labels = labels_of(shown, "train")
few = np.concatenate([np.flatnonzero(labels[:, 0] == value)[:20] for value in (1, 0)])
x = features_of(run, shown, "pacx", "train", "cls")[few]
y = labels[few, 0]
z = StandardScaler().fit_transform(x)
# Each class is dealt out to the folds in turn.
dealt = np.where(y == 1, np.cumsum(y == 1), np.cumsum(y == 0)) % FOLDS


def loss(strength):
    """Mean log loss of each case under the regression that has not seen it."""
    logits = np.empty(len(y))
    for fold in range(FOLDS):
        model = LogisticRegression(C=strength, max_iter=5000, tol=1e-6)
        model.fit(z[dealt != fold], y[dealt != fold])
        logits[dealt == fold] = model.decision_function(z[dealt == fold])
    return np.logaddexp(0, np.where(y == 1, -logits, logits)).mean()


best = min(STRENGTHS, key=loss)
by_hand = LogisticRegression(C=best, max_iter=5000, tol=1e-8).fit(z, y)
ours = fit_probes((x, y[:, None])).probabilities(x)[0, :, 0]
assert np.allclose(ours, by_hand.predict_proba(z)[:, 1], atol=1e-3)
print(f"{len(y)} labels, C = {best:g}")

# %% [markdown]
# {term}`The paper's probe` is different: it keeps the epoch with the best AUROC on the whole validation
# split. It is shown where the paper's numbers stand beside ours, and nowhere else. There it knows more
# labels than its share says, and so did the paper's.
#
# ## One draw is luck
#
# Each dot below is one draw of training labels, scored on all test patients.

# %%
from pacx.evaluation.statistics import macro_auroc
from pacx.evaluation.transfer import probe_scores
from pacx.figures.tables import POOLING_NAMES

tasks = PHYSIOLOGY_TASKS if run.is_phantom else shown.labels
chosen = [shown.labels.index(task) for task in tasks]
truth = labels_of(shown, "test")[:, chosen]
once = np.ones((1, len(truth)))
single = {
    (pooling, model, fraction): [
        macro_auroc(truth, np.asarray(draw)[:, chosen], once)[0]
        for draw in probe_scores(run, shown, model, fraction=fraction, pooling=pooling)
    ]
    for pooling in POOLING_NAMES
    for model in models
    for fraction in fractions
}

# %% mystnb={"image": {"alt": "AUROC of every single draw of training labels on the first data set, MAE and PaCX-MAE side by side, one column for each share of the labels; left panel from the CLS token, right panel from the mean of patches."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from pacx.book.privacy import declare
from pacx.figures.style import colour_of, marker_of, name_of

figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.4), sharey=True)
for (pooling, model, fraction), values in single.items():
    place = fractions.index(fraction) + 0.32 * models.index(model) - 0.16
    axes[list(POOLING_NAMES).index(pooling)].plot(
        [place] * len(values),
        values,
        marker_of(model),
        color=colour_of(model),
        alpha=0.6,
        label=name_of(model) if fraction == fractions[0] else None,
    )
for axis, read in zip(axes, POOLING_NAMES.values(), strict=True):
    axis.set_xticks(range(len(fractions)), [f"{f:.0%}" for f in fractions])
    axis.set(xlabel="share of training labels", title=read)
axes[0].set_ylabel(f"AUROC on {shown.name}")
axes[0].legend()
_ = declare(run, figure)

# %% [markdown]
# So a share is judged by the mean over draws; how many, the profile says (`label_efficiency.draws`). Both
# encoders are trained on the same draws, so that sampling luck cancels in their difference. The
# interval below resamples *test patients*, as in [chapter 06](06_clinical_transfer).
#
# ## The curves
#
# Which data sets? On phantoms, the physiology tasks. Then every binary or multilabel benchmark of
# the profile. Each is read from the CLS token and from the mean of the patches by the converged probe,
# and from the CLS token by the paper's probe as well. Where a share is too small to hold every class,
# the library refuses to draw, and the table has a gap with its reason instead of a number that means
# something else.

# %%
import pandas as pd

from pacx.errors import PacxError
from pacx.evaluation.transfer import compare_probes
from pacx.figures.tables import show

readings = [("converged", "cls"), ("converged", "mean"), ("paper", "cls")]
benchmarks = [open_benchmark(run, name) for name in run.profile.benchmarks]
cut = [(d, d.labels, d.name) for d in benchmarks if d.task in ("binary", "multilabel")]
cut = [(shown, PHYSIOLOGY_TASKS, "phantom physiology"), *cut] if run.is_phantom else cut
parts, gaps = [], []
for dataset, named, name in cut:
    for fraction in fractions:
        try:
            parts += [
                compare_probes(
                    run, dataset, models, tasks=named, fraction=fraction,
                    probe=probe, pooling=pooling,
                ).assign(dataset=name)
                for probe, pooling in readings
            ]  # fmt: skip
        except PacxError as error:
            gaps.append({"data set": name, "fraction": fraction, "gap": str(error)})
table = pd.concat(parts, ignore_index=True)
converged = table[table["probe"] == "converged"]
converged = converged.assign(read=converged["pooling"].map(POOLING_NAMES))

# %% tags=["remove-input"]
show(pd.DataFrame(gaps or [{"gap": "none: every share could be drawn"}]))

# %% [markdown]
# Dots and bands are this run's, of the converged probe: left from the CLS token, right from the mean of
# the patches. Mind that each panel has a scale of its own. The hollow diamonds are the paper's numbers
# for the data sets that it cuts, read from the CLS token by the paper's probe. They are from real
# patients and a larger encoder: what may be compared is the slope, and the gap between the two colours.

# %% mystnb={"image": {"alt": "AUROC against the share of training labels on a logarithmic axis, one row of panels a data set, the CLS token left and the mean of patches right, MAE and PaCX-MAE with 95 percent bands over test patients; the paper's points are hollow diamonds."}} tags=["hide-input"]
from pacx.evaluation.paper import published
from pacx.figures.results import forest_panels, label_efficiency

theirs = published("label_efficiency")
theirs["panel"] = theirs["dataset"].str.lower() + ", CLS token"
short = converged["pooling"].map({"cls": "CLS token", "mean": "patches"})
panels = converged.assign(panel=converged["dataset"] + ", " + short)
_ = label_efficiency(panels, panels="panel", published=theirs)

# %% [markdown]
# The paired difference at each share. The paper's claim is a pattern: the fewer the labels, the
# larger the gain.

# %% mystnb={"image": {"alt": "Forest plots of PaCX-MAE minus MAE, one panel a share of labels, one row a data set, with 95 percent intervals around zero; filled dots are the CLS token, hollow dots the mean of patches."}} tags=["hide-input"]
gain = converged[converged["model"] == "pacx"]
gain = gain.assign(share=gain["fraction"].map("{:.0%} of labels".format))
gain = gain.sort_values("fraction", kind="stable")
x_label = "difference in AUROC, PaCX-MAE minus MAE"
_ = forest_panels(gain, panels="share", filled="read", rows="dataset", x_label=x_label)

# %% [markdown]
# A mean can hide that one task gained and another lost. So each physiology task of the phantoms
# stands alone, at the smallest share and with all labels:

# %% mystnb={"image": {"alt": "Forest plots of PaCX-MAE minus MAE, one row a physiology task, one panel for the smallest share of labels and one for all labels, with 95 percent intervals around zero; filled dots are the CLS token, hollow dots the mean of patches."}} tags=["hide-input"]
by_task = table[:0]
if run.is_phantom:
    parts = [
        compare_probes(run, shown, models, tasks=[task], fraction=f, pooling=pooling)
        for task in PHYSIOLOGY_TASKS
        for f in sorted({smallest, max(fractions)})
        for pooling in POOLING_NAMES
    ]
    by_task = pd.concat(parts, ignore_index=True)
    alone = by_task[by_task["model"] == "pacx"]
    alone = alone.assign(
        share=alone["fraction"].map("{:.0%} of labels".format),
        read=alone["pooling"].map(POOLING_NAMES),
    )
    _ = forest_panels(alone, panels="share", filled="read", rows="task", x_label=x_label)
_ = run.save_results("label_efficiency", pd.concat([table, by_task], ignore_index=True))

# %% [markdown]
# ## Beside the paper
#
# The same numbers, from the CLS token, by the converged probe and by the paper's. The paper's values with
# fewer than all labels were read off its figure.

# %% tags=["remove-input"]
from pacx.figures.tables import beside_the_paper

show(beside_the_paper(table, "label_efficiency"))

# %% [markdown]
# ## Beside the evidence
#
# PaCX-MAE minus MAE with the demo's settings on fresh cohorts of **phantom** patients, with several
# trainings on each ([how](../book/protocol)), by the converged probe in this run. First the averages,
# then each physiology task alone:

# %% tags=["remove-input"]
from IPython.display import display

from pacx.figures.tables import beside_the_evidence, folded

display(beside_the_evidence(converged, "label_efficiency"))
if run.is_phantom:
    alone = beside_the_evidence(by_task, "label_efficiency")
    display(folded(alone, "Each physiology task alone"))

# %% [markdown]
# ## Check it yourself

# %%
subsets = draw_subsets(labels, smallest, run.profile.label_efficiency.draws, run.profile.seed)

# Every draw has the promised size, no row twice, and a positive and a negative of every label.
assert subsets.shape[1] == round(smallest * len(labels))
assert all(len(set(rows)) == len(rows) for rows in subsets)
assert all((labels[rows] == value).any(axis=0).all() for rows in subsets for value in (0, 1))

# With few labels the library's probes come from the training rows of each draw and nothing else.
everyone = features_of(run, shown, "pacx", "train", "cls")
alone = fit_probes((everyone, labels), subsets=subsets)
ours = train_probes(run, shown, "pacx", fraction=smallest)
assert np.allclose(ours.weight, alone.weight, atol=1e-5)

# More labels do not hurt: the mean AUROC over encoders and poolings, and over the data sets that could
# be cut at every share, rises from the smallest share to all.
whole = converged.groupby("dataset").filter(lambda part: set(part["fraction"]) == set(fractions))
means = whole.groupby("fraction")["value"].mean()
assert means[max(fractions)] > means[smallest] - 0.02
print("All checks passed.")

# %% [markdown]
# ## Summary

# %% [markdown]
# The paper's claim is that the gain of PaCX-MAE is larger when labels are few. The table holds it against
# this run: the gain at the smallest share, the gain with all labels, and the first minus the second,
# each averaged over the data sets that could be cut at every share. Only where the last column lies above
# zero has the run shown the pattern. All three use the converged probe, which sees no label beyond its
# share.

# %% tags=["hide-input"]
from pacx.evaluation.statistics import interval
from pacx.evaluation.transfer import macro_score

averaged = [(d, named) for d, named, name in cut if name in set(whole["dataset"])]


def gain_at(fraction, pooling):
    """PaCX-MAE minus MAE over the data sets: the value, and each resample's."""
    scores = [
        macro_score(run, d, model, tasks=named, fraction=fraction, pooling=pooling)
        for model in ("pacx", "mae")
        for d, named in averaged
    ]
    ours, theirs = scores[: len(averaged)], scores[len(averaged) :]
    points, spreads = (
        np.mean([a[k] - b[k] for a, b in zip(ours, theirs, strict=True)], axis=0) for k in (0, 1)
    )
    return points, spreads


pattern = []
for pooling, read in POOLING_NAMES.items():
    few, every = (gain_at(f, pooling) for f in (smallest, max(fractions)))
    change = [a - b for a, b in zip(few, every, strict=True)]
    pattern.append(
        {
            "read from": read,
            f"gain, {smallest:.0%} of labels [95 %]": str(interval(*few)),
            "gain, all labels [95 %]": str(interval(*every)),
            "few minus all [95 %]": str(interval(*change)),
        }
    )
show(pd.DataFrame(pattern))

# %% [markdown]
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
# ## Next
#
# Probes ask for labels at all. [Chapter 08](08_alignment) asks without any: does an X-ray find its
# own ECG?
#
# ## References
#
# The method: {cite:p}`liu2026pacx`. The data sets: {cite:p}`bhave2024chexchonet`,
# {cite:p}`elsharief2025medmod`, {cite:p}`nguyen2022vindr`, {cite:p}`wang2017chestxray8`,
# {cite:p}`jaeger2014shenzhen`.
