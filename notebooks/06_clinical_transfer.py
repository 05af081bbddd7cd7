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
# encoder has read more out of the X-ray?

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
# - What a {term}`Linear probe` measures, and what it does not.
# - How to read {term}`AUROC`, {term}`F1`, {term}`Dice` and {term}`IoU`, with intervals over
#   patients.
# - Why two models are compared on the *same* resampled patients.
# - What several comparisons at once ask of a p-value.
# - What distillation changes for tasks of physiology, and for tasks that only the picture shows.
# - How much the answer depends on reading the {term}`CLS token` or the mean of all patches.
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
from pacx.evaluation.features import encoder_of
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
show(pd.DataFrame(about))

# %% [markdown]
# A data set joins this chapter when the profile names it; nothing below changes. The paper has
# nine: six with labels, three with masks.
#
# ## The linear probe
#
# The encoder is {term}`frozen`. It turns each X-ray into an {term}`embedding` $h \in
# \mathbb{R}^D$, the CLS token after the last layer. One linear layer is trained on top, for each
# label $c$ of X-ray $i$:
#
# $$\hat y_{ic} = \operatorname{sigmoid}(w_c^\top h_i + b_c).$$
#
# The loss is the binary cross-entropy,
#
# $$\mathcal{L} = -\frac{1}{|\mathcal{K}|}\sum_{(i,c) \in \mathcal{K}}
# \big[y_{ic} \log \hat y_{ic} + (1 - y_{ic})\log(1 - \hat y_{ic})\big],$$
#
# where $y_{ic}$ is the label, 1 or 0, and $\mathcal{K}$ holds those of the {term}`batch` that are known.
# With several exclusive classes, softmax and {term}`cross-entropy` take the place of sigmoid and binary
# cross-entropy. The epoch with the best validation AUROC is kept. Where the profile sets `flip`, as
# `paper` does, each step sees an image plain or mirrored, as a coin falls; elsewhere plain only. A linear
# layer can only use what already lies along some direction of the embedding. So the probe asks what the
# encoder has laid out, not what could be learned from the X-ray with more labels and more freedom.

# %% tags=["remove-input"]
from pacx.evaluation import probe
from pacx.figures.source import show_source

show_source(probe.fit_probes, probe._loss)

# %% [markdown]
# The first benchmark, step by step. A threshold on $\hat y$ makes a decision; the ROC curve shows every
# threshold at once: sensitivity (the share of patients with the finding who are found) against
# 1 − specificity (the share of those without it who are alarmed). AUROC is the area below it, and also
# the chance that a random patient with the finding scores higher than a random one without.

# %%
from pacx.evaluation.probe import labels_of
from pacx.evaluation.transfer import compare_probes, probe_scores

first = probed[0]
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
_ = axis.legend(title="AUROC [95 %]")

# %% [markdown]
# ## Intervals over patients, and pairs
#
# A test set is a sample. With other patients the AUROC would be another number, hence a
# {term}`confidence interval`. The {term}`bootstrap` imitates that: draw as many *patients* as there are,
# with replacement, and score again. All images of a patient come and go together, because they are not
# independent. The middle 95 % of the scores are the interval, as in the legend above.
#
# To compare two encoders, both are scored on the *same* draws and subtracted: $\Delta^{(d)} =
# S^{(d)}_\text{PaCX-MAE} - S^{(d)}_\text{MAE}$, with $S^{(d)}$ the score on draw $d$. A draw of easy
# patients helps both and leaves the difference alone. So the interval of $\Delta$ is narrower than the
# two single intervals suggest, and it is the one to look at.

# %%
from pacx.evaluation.transfer import compare_segmentation

metrics = ("AUROC", "AUPRC", "F1", "F1 (tuned)")
transfer = pd.concat(
    [compare_probes(run, d, models, metric=m) for d in probed for m in metrics]
    + [compare_segmentation(run, d, models) for d in segmented],
    ignore_index=True,
).drop(columns=["pooling", "fraction"])
run.save_results("transfer", transfer)
by_masks = transfer["task"] == "segmentation"
_ = run.save_results("segmentation", transfer[by_masks])

# %% [markdown]
# Four scores for the benchmarks with labels:
#
# - **AUROC** looks at the order of the patients only.
# - **{term}`AUPRC`** is the area below precision against recall, here the average precision. It also
#   looks at the order only, but asks how many of the alarmed have the finding. Guessing reaches the
#   share of those who have it, so AUPRC of two data sets cannot be compared.
# - **F1** is taken at a probability of 0.5, as in the paper. With few ill patients a probe seldom
#   says 0.5 or more, and F1 is low although the order is good.
# - **F1 (tuned)** is taken at the threshold that was best on the *validation* patients, one for each
#   label. The gap between the two F1 is the choice of threshold, not what the encoder has read. It is
#   there even when every probability is right.
#
# Scores of several labels are averaged ({term}`macro average`). Of exclusive classes the likeliest one
# is the decision, so there both F1 are equal. A label whose known test cases all have one value has no
# AUROC, and one without a positive no AUPRC: the averages leave it out. F1 counts 0 for a label without
# a positive.

# %% tags=["hide-input"]
from pacx.evaluation.transfer import labels_left_out

left_out = {dataset.name: labels_left_out(dataset) for dataset in probed}
told = "; ".join(f"of {name} {', '.join(labels)}" for name, labels in left_out.items() if labels)
display(Markdown(f"Left out of the averages in this run: {told or 'no label'}.".replace("_", " ")))

# %% mystnb={"image": {"alt": "Four panels, AUROC, AUPRC, F1 at 0.5 and F1 at the tuned threshold: each encoder on each benchmark with labels, as dots with 95 percent intervals, one colour a model."}} tags=["hide-input"]
from pacx.figures.results import dots, forest

_ = dots(transfer[~by_masks], rows="dataset", panels="metric")

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
from pacx.evaluation.segment import segment

if segmented:
    dataset, n = segmented[0], 4
    train = images_of(run, dataset, "train"), images_of(run, dataset, "train", "mask")
    images = images_of(run, dataset, "test")[:n]
    found = [segment(run, dataset.name, model, train, images) for model in ("mae", "pacx")]

# %% mystnb={"image": {"alt": "Test X-rays of the segmentation benchmark in rows: the true lung mask outlined, then the outlines found with the MAE encoder and with the PaCX-MAE encoder."}} tags=["hide-input", "public"]
import numpy as np

from pacx.figures.cxr import montage
from pacx.privacy import keep_home

if segmented:
    true = images_of(run, dataset, "test", "mask")[:n] > 0
    titles = [who if i == 0 else "" for who in ("true mask", "MAE", "PaCX-MAE") for i in range(n)]
    figure = montage(
        np.concatenate([images] * 3),
        titles,
        columns=n,
        masks={"lungs": np.concatenate([true, *found])},
    )
    keep_home(run, figure, "06_masks", dataset.name)

# %% [markdown]
# ## Many differences, one family
#
# One main score for each benchmark, fixed before looking: AUROC, or IoU where there are masks. The
# paired differences, right of the line PaCX-MAE is ahead:

# %%
primary = transfer[(transfer["model"] == "pacx") & transfer["metric"].isin(["AUROC", "IoU"])]
primary = primary.assign(row=primary["dataset"] + ", " + primary["metric"])

# %% mystnb={"image": {"alt": "Forest plot: paired difference PaCX-MAE minus MAE in the main score of each benchmark, with 95 percent intervals around zero."}} tags=["hide-input"]
_ = forest(primary, rows="row", x_label="difference in score, PaCX-MAE minus MAE")

# %% [markdown]
# Each interval may miss the truth once in twenty. Among several, one false alarm is no rarity. **Holm's
# correction** {cite:p}`holm1979simple` holds the whole family to 5 %: the
# smallest of $n$ p-values is multiplied by $n$, the next by $n - 1$, and so on, never below the one
# before.
#
# The p-value that is corrected comes from the paired bootstrap: twice the share of draws on the far
# side of zero,
#
# $$p = 2\,\frac{1 + \min\big(\#\{\Delta^{(d)} \le 0\}, \#\{\Delta^{(d)} \ge 0\}\big)}{R + 1},$$
#
# so it cannot fall below $2 / (R + 1)$ with $R$ draws, and after Holm's correction not below $n$ times
# that: equal values in the last column are this floor. It serves every score, and it draws patients.
# Beside it, where the task is one binary label, stands the test that is usual for AUROCs: **DeLong's**
# {cite:p}`delong1988comparing`, by ranks {cite:p}`sun2014fast`. It has a formula instead of draws, and
# takes images as independent: where patients have several, trust the bootstrap.

# %%
from pacx.evaluation.statistics import delong, difference_of, holm, verdict


def delong_p(dataset):
    pacx, mae = (np.asarray(probe_scores(run, dataset, m))[0, :, 0] for m in ("pacx", "mae"))
    return delong(labels_of(dataset, "test")[:, 0], pacx, mae)[1]


binary = {dataset.name: delong_p(dataset) for dataset in probed if dataset.task == "binary"}
primary["p_holm"] = holm(primary["difference_p"])
primary["p_delong"] = primary["dataset"].map(binary)
_ = run.save_results("transfer_tests", primary)

# %% tags=["hide-input"]
show(
    pd.DataFrame(
        {
            "benchmark": primary["row"],
            "PaCX-MAE minus MAE [95 %]": [str(difference_of(row)) for _, row in primary.iterrows()],
            "p, DeLong": primary["p_delong"].map("{:.2g}".format, na_action="ignore"),
            "p, bootstrap": primary["difference_p"],
            "p, Holm": primary["p_holm"],
        }
    )
)

# %% [markdown]
# ## Beside the paper
#
# The paper's numbers are the paper's: real patients, ViT-B/16, hundreds of epochs. Ours come from
# this run. Do not compare cell by cell. Compare the order of the models; whether a difference is more
# than chance, its interval says. First the main score, in the paper's order.

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
# A phantom's true state is known. So its tasks can be sorted by cause:
#
# - *physiology*, which an ECG or a blood test can carry too: {term}`hypertrophy`, {term}`dilation`,
#   {term}`congestion`, {term}`anaemia`, kidney disease, inflammation, and obstructive lung disease
#   ({term}`COPD`);
# - *anatomy*: a pacemaker, a tube, a rotated patient, a {term}`pneumothorax`. In the phantom hospital
#   only the picture shows it and no teacher knows it. (A real ECG shows a pacemaker that paces.)
#
# The ECG teacher was trained on neither group, but its diagnoses share causes with physiology.
# [Chapter 09](09_components) measures what it knows of each state.
#
# Every task is probed twice: on the CLS token, as in the paper, and on the mean of the patch
# tokens. The MAE's loss asks nothing of the CLS token itself, which is trained only as far as it helps
# to paint patches. Distillation trains it directly. So reading CLS alone can flatter the distilled
# encoder; the summary says by how much.

# %%
from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS

groups = {"physiology": PHYSIOLOGY_TASKS, "anatomy": ANATOMY_TASKS}
poolings = {"cls": "CLS token", "mean": "mean of patches"}
if run.is_phantom:
    phantoms = open_benchmark(run, "phantom-truth")
    parts = [
        compare_probes(run, phantoms, models, tasks=tasks, pooling=pooling).assign(
            group=group, task=name
        )
        for pooling in poolings
        for group, whole in groups.items()
        for name, tasks in {**{t: [t] for t in whole}, f"mean of {group}": whole}.items()
    ]
    physiology = run.save_results("physiology", pd.concat(parts, ignore_index=True))
else:
    display(Markdown("Real patients have no known state, so this section is empty on real data."))

# %% mystnb={"image": {"alt": "AUROC of each physiology and anatomy task for random weights, MAE and PaCX-MAE from the CLS token, with 95 percent intervals and the line of guessing."}} tags=["hide-input"]
if run.is_phantom:
    cls = physiology[physiology["pooling"] == "cls"]
    _ = dots(cls, chance=0.5, x_label="AUROC, CLS token")

# %% mystnb={"image": {"alt": "Forest plot of the difference PaCX-MAE minus MAE for every task, from the CLS token and from the mean of patches, with 95 percent intervals."}} tags=["hide-input"]
if run.is_phantom:
    gain = physiology[physiology["model"] == "pacx"].sort_values(
        ["group", "task"], ascending=[False, True]
    )
    gain = gain.assign(row=gain["task"] + ", " + gain["pooling"].replace(poolings))
    _ = forest(gain, rows="row")

# %% tags=["hide-input"]
from pacx.figures.tables import in_words

if run.is_phantom:
    means = physiology[physiology["task"].str.startswith("mean of")]
    display(show(in_words(means, "task", "pooling")))

# %% [markdown]
# ## Beside the evidence
#
# One run is one cohort of patients and one training. The book's evidence repeats this chapter with
# the same settings on fresh cohorts, several trainings on each, and its interval covers both.
# [How](../book/protocol) it was gathered, and what it leaves out, has a page of its own. PaCX-MAE minus
# MAE:

# %% tags=["remove-input"]
from pacx.figures.tables import beside_the_evidence

beside_the_evidence(primary, "transfer")

# %% [markdown]
# ## Check it yourself

# %%
from sklearn.metrics import roc_auc_score

from pacx.evaluation.statistics import macro_auroc

# Our AUROC is scikit-learn's.
value = transfer.query("dataset == @first.name and metric == 'AUROC' and model == 'pacx'")[
    "value"
].item()
scores = np.asarray(probe_scores(run, first, "pacx"))[0]
known = ~np.isnan(labels_of(first, "test"))
columns = range(len(first.labels))
sklearn = [
    roc_auc_score(labels_of(first, "test")[known[:, c], c], scores[known[:, c], c]) for c in columns
]
assert abs(value - np.mean(sklearn)) < 1e-6

# Labels that belong to somebody else cannot be predicted: 0.5 on average.
shuffle = np.random.default_rng(0).permutation
once = np.ones((1, len(scores)))
null = [
    macro_auroc(labels_of(first, "test")[shuffle(len(scores))], scores, once)[0] for _ in range(200)
]
assert abs(np.mean(null) - 0.5) < 0.03

# Nobody is in two splits.
assert run.profile.leaks == "waive" or not any(d.patients_in_two_splits for d in benchmarks)
print("All checks passed.")

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
from pacx.evaluation.statistics import interval
from pacx.evaluation.transfer import macro_score


def gain_from(pooling):
    """PaCX-MAE minus MAE on all tasks of physiology: its value, and each resample's."""
    pacx, mae = (
        macro_score(run, phantoms, model, tasks=PHYSIOLOGY_TASKS, pooling=pooling)
        for model in ("pacx", "mae")
    )
    return [ours - theirs for ours, theirs in zip(pacx, mae, strict=True)]


lines = ["PaCX-MAE minus MAE in this run, with 95 % intervals over patients:", ""]
lines += [
    f"- {row['row']}: {difference_of(row)}, {verdict(difference_of(row))}"
    + ("." if row["p_holm"] >= 0.05 else ", and after Holm's correction as well.")
    for _, row in primary.iterrows()
]
rest = transfer[(transfer["model"] == "pacx") & ~transfer["metric"].isin(["AUROC", "IoU"])]
verdicts = [verdict(difference_of(row)) for _, row in rest.iterrows()]
lines += [
    "",
    f"Of the {len(rest)} differences in the other scores, {verdicts.count('above zero')} are above "
    f"zero and {verdicts.count('below zero')} below it.",
]
if run.is_phantom:
    lines += ["", "Phantom tasks, AUROC, mean of the group, by pooling:", ""]
    lines += [
        f"- {row['task']}, {poolings[row['pooling']]}: {difference_of(row)}, "
        f"{verdict(difference_of(row))}."
        for _, row in means[means["model"] == "pacx"].iterrows()
    ]
    parts = zip(gain_from("cls"), gain_from("mean"), strict=True)
    flattery = interval(*(from_cls - from_patches for from_cls, from_patches in parts))
    lines += [
        "",
        "The gain on physiology as the CLS token shows it, minus the gain as the patches show it: "
        f"{flattery}, {verdict(flattery)}.",
    ]
display(Markdown("\n".join(lines)))

# %% [markdown]
# ## Exercises
#
# 1. An encoder scores 0.80 [0.77, 0.83] and another 0.82 [0.79, 0.85]. May one say that the second
#    is better?
#
# ```{dropdown} Answer
# These two intervals do not tell. They hold what both models share: how easy the drawn patients
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
# 3. Suppose that two encoders are equally good. How often does at least one of nine independent
#    tests at 0.05 say otherwise, without a correction?
#
# ```{dropdown} Answer
# $1 - 0.95^9$, more than one time in three. With Holm's correction it is at most one in twenty. The
# price: a true difference has to be larger to be found.
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
# {cite:p}`nimalsiri2023cxlseg`. Tests: {cite:p}`delong1988comparing`, {cite:p}`sun2014fast`,
# {cite:p}`holm1979simple`.
