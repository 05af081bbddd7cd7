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
from pacx.chapter import banner, open_chapter

run = open_chapter(profile, runs)
banner(run)

# %% [markdown]
# ## What you will learn
#
# - How training labels are drawn so that no class is lost.
# - Why one draw is not enough, and how far apart draws are.
# - What distillation is worth when labels are few, with intervals over patients.
# - Which data sets cannot be cut that small at all.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | {term}`Linear probe`, {term}`AUROC`, {term}`Bootstrap` | the same probes and intervals | [chapter 06](06_clinical_transfer) |
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
from pacx.evaluation import probe
from pacx.figures.source import show_source

show_source(probe._draw)

# %% [markdown]
# Validation and test patients stay whole at every share. Choosing the epoch on the full validation
# split is generous when labels are few, and equally so to both encoders.
#
# ## One draw is luck
#
# Each dot below is one draw of training labels, scored on all test patients.

# %%
import numpy as np

from pacx.constants import PHYSIOLOGY_TASKS
from pacx.evaluation.probe import labels_of
from pacx.evaluation.statistics import macro_auroc
from pacx.evaluation.transfer import open_benchmark, probe_scores

shown = open_benchmark(run, "phantom-truth" if run.is_phantom else run.profile.benchmarks[0])
tasks = PHYSIOLOGY_TASKS if run.is_phantom else shown.labels
chosen = [shown.labels.index(task) for task in tasks]
truth = labels_of(shown, "test")[:, chosen]
once = np.ones((1, len(truth)))
fractions = run.profile.label_efficiency.fractions
single = {
    (model, fraction): [
        macro_auroc(truth, np.asarray(draw)[:, chosen], once)[0]
        for draw in probe_scores(run, shown, model, fraction=fraction)
    ]
    for model in models
    for fraction in fractions
}

# %% mystnb={"image": {"alt": "AUROC of every single draw of training labels on the first data set, MAE and PaCX-MAE side by side, one column for each share of the labels."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from pacx.figures.style import colour_of, marker_of, name_of

figure, axis = plt.subplots(figsize=(6.0, 3.6))
for (model, fraction), values in single.items():
    place = fractions.index(fraction) + 0.32 * models.index(model) - 0.16
    axis.plot(
        [place] * len(values),
        values,
        marker_of(model),
        color=colour_of(model),
        alpha=0.6,
        label=name_of(model) if fraction == fractions[0] else None,
    )
axis.set_xticks(range(len(fractions)), [f"{f:.0%}" for f in fractions])
axis.set(
    xlabel="share of training labels", ylabel="AUROC", title=f"{shown.name}: every draw is a dot"
)
_ = axis.legend()

# %% [markdown]
# So a share is judged by the mean over draws; how many, the profile says. Draws of both encoders are
# the same rows, so that they meet the same luck. The interval below resamples *test patients*, as in
# [chapter 06](06_clinical_transfer).
#
# ## The curves
#
# Which data sets? On phantoms, the physiology tasks. Then every binary or multilabel benchmark of
# the profile. Where a share is too small to hold every class, the library refuses to draw, and the
# table has a gap with its reason instead of a number that means something else.

# %%
import pandas as pd
from IPython.display import Markdown, display

from pacx.errors import PacxError
from pacx.evaluation.transfer import compare_probes

benchmarks = [open_benchmark(run, name) for name in run.profile.benchmarks]
cut = [(d, d.labels, d.name) for d in benchmarks if d.task in ("binary", "multilabel")]
cut = [(shown, PHYSIOLOGY_TASKS, "phantom physiology"), *cut] if run.is_phantom else cut
parts, gaps = [], []
for dataset, labels, name in cut:
    for fraction in fractions:
        try:
            part = compare_probes(run, dataset, models, tasks=labels, fraction=fraction)
            parts.append(part.assign(dataset=name))
        except PacxError as error:
            gaps.append(f"- {name} at {fraction:.0%}: {error}")
table = pd.concat(parts, ignore_index=True).drop(columns="pooling")
draws = run.profile.label_efficiency.draws
display(Markdown(f"Each share below 100 % is the mean of {draws} draws."))
display(Markdown("\n".join(["Gaps:", "", *gaps]) if gaps else "Every share could be drawn."))

# %% [markdown]
# Dots and bands are this run's. The hollow diamonds are the paper's numbers for the data sets that
# it cuts. They are from real patients and a larger encoder: what may be compared is the slope, and
# the gap between the two colours.

# %% mystnb={"image": {"alt": "AUROC against the share of training labels on a logarithmic axis, one panel a data set, MAE and PaCX-MAE with 95 percent bands over test patients; the paper's points are hollow diamonds."}} tags=["hide-input"]
from pacx.figures.results import forest, label_efficiency
from pacx.paper import published

theirs = published("label_efficiency")
_ = label_efficiency(table, published=theirs.assign(dataset=theirs["dataset"].str.lower()))

# %% [markdown]
# The paired difference at each share. The paper's claim is a pattern: the fewer the labels, the
# larger the gain.

# %% mystnb={"image": {"alt": "Forest plot of PaCX-MAE minus MAE for each data set and share of labels, with 95 percent intervals around zero."}} tags=["hide-input"]
gain = table[table["model"] == "pacx"]
gain = gain.assign(
    row=[f"{d}, {f:.0%}" for d, f in zip(gain["dataset"], gain["fraction"], strict=True)]
)
_ = forest(gain, rows="row")

# %% [markdown]
# A mean can hide that one task gained and another lost. So each physiology task of the phantoms
# stands alone, at the smallest share and with all labels:

# %% mystnb={"image": {"alt": "Forest plot of PaCX-MAE minus MAE for each physiology task at the smallest share of labels and with all labels, with 95 percent intervals around zero."}} tags=["hide-input"]
if run.is_phantom:
    ends = sorted({min(fractions), max(fractions)})
    parts = [
        compare_probes(run, shown, models, tasks=[task], fraction=fraction)
        for task in PHYSIOLOGY_TASKS
        for fraction in ends
    ]
    by_task = pd.concat(parts, ignore_index=True).drop(columns="pooling")
    alone = by_task[by_task["model"] == "pacx"]
    rows = [f"{t}, {f:.0%}" for t, f in zip(alone["task"], alone["fraction"], strict=True)]
    _ = forest(alone.assign(row=rows), rows="row")
    run.save_results("label_efficiency", pd.concat([table, by_task], ignore_index=True))
else:
    run.save_results("label_efficiency", table)

# %% [markdown]
# ## Beside the paper
#
# The same numbers. The paper's values with fewer than all labels were read off its figure.

# %% tags=["remove-input"]
from pacx.figures.tables import beside_the_paper, show

show(beside_the_paper(table, "label_efficiency"))

# %% [markdown]
# ## Beside the evidence
#
# PaCX-MAE minus MAE with the demo's settings on fresh cohorts of **phantom** patients, with several
# trainings on each ([how](../book/protocol)):

# %% tags=["remove-input"]
from pacx.figures.tables import beside_the_evidence

display(beside_the_evidence(table, "label_efficiency"))
if run.is_phantom:
    display(Markdown("Each physiology task alone:"))
    display(beside_the_evidence(by_task, "label_efficiency"))

# %% [markdown]
# ## Check it yourself

# %%
from pacx.evaluation.probe import draw_subsets

labels = labels_of(shown, "train")
smallest = min(fractions)
subsets = draw_subsets(labels, smallest, run.profile.label_efficiency.draws, run.profile.seed)

# Every draw has the promised size, no row twice, and a positive and a negative of every label.
assert subsets.shape[1] == round(smallest * len(labels))
assert all(len(set(rows)) == len(rows) for rows in subsets)
assert all((labels[rows] == value).any(axis=0).all() for rows in subsets for value in (0, 1))

# More labels do not hurt: the mean AUROC over encoders, and over the data sets that could be cut at
# every share, rises from the smallest share to all.
whole = table.groupby("dataset").filter(lambda part: set(part["fraction"]) == set(fractions))
means = whole.groupby("fraction")["value"].mean()
assert means[max(fractions)] > means[smallest] - 0.02
print("All checks passed.")

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
from pacx.evaluation.statistics import difference_of, interval, verdict
from pacx.evaluation.transfer import macro_score


def few_minus_all(dataset, labels):
    """The gain at the smallest share minus that with all labels: its value, and each resample's."""
    most = max(fractions)
    signs = {("pacx", smallest): 1, ("mae", smallest): -1, ("pacx", most): -1, ("mae", most): 1}
    scores = [
        macro_score(run, dataset, model, tasks=labels, fraction=fraction)
        for model, fraction in signs
    ]
    return [np.dot(list(signs.values()), part) for part in zip(*scores, strict=True)]


changes = [few_minus_all(d, labels) for d, labels, name in cut if name in set(whole["dataset"])]
change = interval(*(np.mean(part, axis=0) for part in zip(*changes, strict=True)))
lines = [
    f"- {row['row']}: {difference_of(row)}, {verdict(difference_of(row))}."
    for _, row in gain.iterrows()
]
display(
    Markdown(
        "PaCX-MAE minus MAE, AUROC:\n\n"
        + "\n".join(lines)
        + "\n\nThe gain at the smallest share minus that with all labels, averaged over the data sets "
        f"that could be cut at every share: {change}, {verdict(change)}."
    )
)

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
