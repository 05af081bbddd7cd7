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
# # The cohort and how it is paired
#
# Before any network is trained, this chapter shows whose X-rays, ECGs and blood tests the book
# uses, what causes them, and why no patient is in two places at once.
#
# Reading time: about 15 minutes, and 11 for the appendix.

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

run = open_chapter(profile, runs, needs="symile-mimic")
banner(run)

# %% [markdown]
# ## What you will learn
#
# - Which hidden states a phantom patient has, and which causes which.
# - What one patient looks like in three modalities.
# - Why it is informative that a blood test was *not* ordered.
# - How Symile-MIMIC decides which X-ray, ECG and blood tests belong together.
# - How to check that no patient leaks from training into testing.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | {term}`Phantom` | the patients of this book are made up | [glossary](../book/glossary) |
# | {term}`ECG`, {term}`Lab` | two of the three modalities | [glossary](../book/glossary) |
# | {term}`Encoder`, {term}`Distillation`, {term}`Linear probe`, {term}`Leakage` | what the patients are for | [glossary](../book/glossary) |
# | what a data frame is | tables are shown as pandas frames | [pandas' tutorial](https://pandas.pydata.org/docs/getting_started/intro_tutorials/) |
#
# Nothing else in the book is needed first.

# %% [markdown]
# ## Who the patients are
#
# The method needs patients with three records each. Real ones are behind a data use agreement
# ([access](../book/data_access)), and their true state is never known. So the book simulates a
# hospital. Each patient $i$ has a few hidden **states** $z$, such as the size of the left
# ventricle's cavity. A state is a weighted sum of its direct causes and of noise of its own:
#
# $$ z_k = \sum_{j \in \text{causes}(k)} w_{kj}\, z_j + \sigma_k\, \varepsilon_k ,
# \qquad \varepsilon_k \sim \mathcal{N}(0, 1). $$
#
# This is a linear **structural causal model**. The weights are chosen so that each state has a
# variance near 1: 0 is an average patient, +2 is two standard deviations above average. A thicker
# arrow is a larger weight.

# %% mystnb={"image": {"alt": "Causal graph of the phantom patients' states. Age and body mass index stand on the left. Arrows lead over hypertension to hypertrophy, dilation and loss of kidney function, and from there to fluid overload, anaemia, potassium, atrial load and conduction delay on the right. Only the arrow from body mass index to obstructive lung disease lowers its target."}}
from pacx.figures.graph import causal_graph
from pacx.phantom.state import EQUATIONS

figure = causal_graph(EQUATIONS)

# %% [markdown]
# What each state stands for is folded here; the equations with their weights are in the appendix.

# %% tags=["hide-input"]
import pandas as pd

from pacx.figures.style import label_of
from pacx.figures.tables import folded, show

meanings = [(label_of(k), e.meaning) for k, e in EQUATIONS.items()]
meanings = pd.DataFrame(meanings, columns=["state", "what it means"])
folded(show(meanings), "What each state means")

# %% [markdown]
# Twelve patients by hand: causes come before effects, and each state gets noise of its own. The library
# draws the same patients.

# %%
import numpy as np

from pacx.phantom.state import sample_patients

seed = run.profile.phantom.seed
rng, z = np.random.default_rng([seed, 1]), {}
for state, equation in EQUATIONS.items():
    noise = equation.noise * rng.standard_normal(12)
    causes = [w * z[j] for j, w in equation.parents.items()]
    z[state] = sum(causes, noise)

patients = sample_patients(12, seed)
by_hand = pd.DataFrame(z, dtype="float32")
pd.testing.assert_frame_equal(patients[list(z)], by_hand)

# %% [markdown]
# ## One patient, three modalities
#
# All three records depend on the same hidden states. That is the only thing that the method can use: what
# the ECG and the blood say about a state, the X-ray may show as well. Of two hundred patients, the one
# below has the most fluid. On the X-ray its upper vessels thicken and the lungs haze; on the ECG the rate
# tends to be higher and the deflections smaller; in the blood sodium and haemoglobin tend to be lower,
# urea, bilirubin and liver enzymes higher. Noise and other states can hide each of these signs.
#
# An X-ray is drawn from shapes: body, lungs, heart, vessels, ribs, devices. The states move and darken
# these shapes a little; proportions, position, exposure and texture vary at random, more than the states do.
# The masks of the organs are exact. The appendix shows twelve patients and compares their X-rays with
# real ones.

# %% mystnb={"image": {"alt": "Chest X-ray of one phantom patient with a lot of fluid, next to the same X-ray with outlines of lungs, heart and bones."}}
from pacx.book.privacy import declare
from pacx.figures.cxr import montage
from pacx.phantom.radiograph import render_radiographs

crowd = sample_patients(200, seed + 1)
patient = crowd.nlargest(1, "fluid")
film, mask = render_radiographs(patient, 384, seed=2, masks=True)
about = f"{patient['sex'].item()}, {patient['age_years'].item()} years"
organs = ("lungs", "heart", "bones")
second = {k: np.concatenate([mask[k] & False, mask[k]]) for k in organs}
figure = montage(film.repeat(2, axis=0), [about, "the same"], 2, second)
figure.set_size_inches(6.4, 3.7)
_ = declare(run, figure)

# %% [markdown]
# The ECG, on the paper that a cardiologist expects: 25 mm/s and 10 mm/mV, so a small square is
# 0.04 s wide and 0.1 mV high.

# %% mystnb={"image": {"alt": "Twelve-lead ECG of the same phantom patient on red-lined paper, three rows of four leads and a rhythm strip of lead II, 25 millimetres a second and 10 millimetres a millivolt."}}
from pacx.constants import LEADS_MIMIC
from pacx.figures.ecg import ecg_paper
from pacx.phantom.ecg import render_ecgs

ecg = render_ecgs(patient, 500, seed=2)[0]
title = f"Phantom patient, {about}"
figure = declare(run, ecg_paper(ecg, LEADS_MIMIC, 500, title))

# %% [markdown]
# And the blood tests. The band runs from the low to the high end of each test's own
# {term}`reference range`; the number on the right is the value. A triangle lies beyond the drawn scale.
# A cross marks a test without a result, mostly because it was not ordered; where it stands means
# nothing. H, I and L are the indices of haemolysis, icterus and lipaemia.

# %% mystnb={"image": {"alt": "Panel of fifty blood tests of the same phantom patient in two columns. Dots show where a value lies relative to its reference range, ones of another colour lie outside. Crosses mark tests without a result."}}
from pacx.figures.labs import lab_panel
from pacx.phantom.labs import draw_labs

figure = declare(run, lab_panel(draw_labs(patient, seed=2)[0]))

# %% [markdown]
# ## What an ECG shows of a large heart
#
# With each beat a wave of electrical activity runs
# through the muscle, and electrodes on the skin record the sum. A thicker wall (*hypertrophy*) holds more
# muscle: the QRS complex, the large deflection of a beat, grows, and in the leads where it is tall the
# parts after it (ST and T) may sink. A wider cavity (*dilation*) lengthens the wave's path, so the QRS
# complex tends to become wider. A stretched atrium makes the P wave before it taller and may lose its
# rhythm (fibrillation). On an X-ray a wide cavity widens the heart's silhouette; a thick wall hardly shows.
# The appendix has all weights with which the states act on ECG and blood.

# %% [markdown]
# ## What the X-ray shows of a state
#
# Here one patient is drawn at −2, 0 and +2 standard deviations of each of four states. Within a row,
# positioning and noise stay the same and all other states are 0. The last picture is the difference of
# the two ends: mid-grey is no change, lighter is brighter at +2. With dilation the heart widens. With fluid
# the upper vessels thicken, the lungs haze and their angles fill. With {term}`COPD` the lungs lengthen and
# darken. With anaemia heart and vessels fade; this sign is our invention, borrowed from CT: no radiologist
# reads anaemia off a real chest X-ray in this way. The changes are small on purpose. The appendix shows
# the effect of the {term}`coupling`, the number that sets how strongly pictures show the states.

# %% mystnb={"image": {"alt": "Four rows of X-rays of one phantom patient at minus two, zero and plus two of a state, and the difference between the ends. With dilation the heart widens, with fluid the lungs haze and their angles fill, with obstructive disease the lungs lengthen and darken, with anaemia heart and vessels fade."}}
plain = crowd[~crowd[["pacemaker", "tube", "pneumothorax"]].any(axis=1)]
average = plain.iloc[[0]].assign(**dict.fromkeys(EQUATIONS, 0.0))


def draw(state, step):
    one = average.assign(**{state: step})
    return render_radiographs(one, 192, seed=3)[0][0].astype(int)


films, titles = [], []
for state in ("dilation", "fluid", "copd", "anaemia"):
    low, middle, high = (draw(state, step) for step in (-2, 0, 2))
    difference = np.clip(128 + high - low, 0, 255)
    films += [low, middle, high, difference]
    titles += [f"{label_of(state)} {step}" for step in ("−2", "0", "+2")]
    titles.append("difference")
figure = montage(np.array(films), titles, columns=4)
_ = declare(run, figure)

# %% [markdown]
# ## What could mislead a model
#
# - **A lag.** ECG and blood of a phantom are taken some time after its X-ray, and acute states (fluid,
#   inflammation, potassium, anaemia) change in between. Labels and true states are those of the X-ray's time.
# - **A {term}`shortcut`.** Sicker patients more often carry devices and lie down for their X-ray
#   ({term}`AP`). A probe can read the device instead of the disease.
# - **Another hospital.** `phantom-truth` has a second test split, `shifted` ({term}`shifted test split`),
#   with another exposure and more devices and AP views for all patients.
#
# The appendix has the size of the lag and the share of patients with a device.

# %% [markdown]
# ## Missing tests are informative
#
# A blood gas is drawn when a patient struggles for breath. So *whether* a test exists depends on how sick
# the patient is: missing values are **informative**. In the phantom hospital tests come in panels, and
#
# $$ P(\text{panel ordered} \mid z) = \operatorname{sigmoid}\Big(a + \sum_k b_k z_k\Big). $$
#
# Each line of the figure is a panel in this run's data, against the state with the largest weight $b_k$.
# (Real data have no such figure, because the true states are not known.) The table has the mean share of
# tests with a result. [Chapter 03](03_lab_autoencoder) must therefore tell the network what was
# {term}`Observed`.

# %% mystnb={"image": {"alt": "Share of patients in the training split of Symile-MIMIC who had a panel of blood tests, against the state that drives it. One line each for the blood gas, differential, coagulation and muscle panels, with 95 percent intervals."}}
from pacx.constants import LABS
from pacx.data.datasets import load_pairs
from pacx.figures.labs import ordering_curves
from pacx.phantom.labs import PANELS


def states_and_orders():
    """Panel -> its strongest state (N,), and whether it was ordered."""
    truth = pd.read_csv(symile / "data_npy" / "train" / "truth.csv")
    tests, curves = [lab.name for lab in LABS], {}
    for panel in ("blood gas", "differential", "coagulation", "muscle"):
        weight = pd.Series(PANELS[panel].sickness)
        state = weight.abs().idxmax()
        own = [tests.index(lab) for lab in PANELS[panel].labs]
        name = f"{panel} (by {label_of(state)})"
        ordered = observed[:, own].any(axis=1)
        curves[name] = truth[f"state_{state}"].to_numpy(), ordered
    return curves


# %%
symile = run.data_root / "symile-mimic"
observed = load_pairs(run, "train").observed == 1
if run.is_phantom:
    label = "state of the patient (standard deviations)"
    figure = ordering_curves(states_and_orders(), label)
mean = {"tests": len(LABS), "share observed, mean": observed.mean()}
show(pd.DataFrame([mean]))

# %% [markdown]
# ## How three records become one row
#
# In a hospital an X-ray, an ECG and a blood test are rarely taken at the same hour. Symile-MIMIC
# {cite:p}`saporta2024symile,saporta2025symilemimic` builds one row an {term}`admission` from MIMIC-IV
# {cite:p}`johnson2023mimiciv`, MIMIC-CXR-JPG {cite:p}`johnson2019mimiccxrjpg` and MIMIC-IV-ECG
# {cite:p}`gow2023mimicivecg`:
#
# - **X-ray**: the earliest frontal one, more than 24 and at most 72 hours after admission;
# - **ECG**: the earliest one within 24 hours before or after admission, without gaps;
# - **labs**: the earliest value of each of the 50 tests within 24 hours before or after admission;
#   at least one must exist.
#
# An admission without all three is left out. The X-ray is the *latest* of the three. Up to 96 hours can lie
# between them, and what is acute may have been treated by then.

# %% mystnb={"image": {"alt": "Timeline in hours since admission. X-rays count from hour 24 to 72, ECGs and labs from hour minus 24 to 24. In each window the earliest record, a filled dot, is taken and later ones, hollow dots, are left out."}} tags=["hide-input"]
from pacx.figures.graph import pairing_timeline

figure = pairing_timeline()

# %% [markdown]
# ## All data sets of this run
#
# The phantom hospital writes every data set in the layout of the real one, so the same code reads both.
# *Positive* is the share of positive labels among the known ones, averaged over labels. *Terms* are those of
# the real data set: patients of one that is not open are never shown in a book, and counts of fewer than
# ten of them are left out. The appendix has notes on single data sets.

# %% mystnb={"code_prompt_show": "How the sets are counted"} tags=["hide-input"]
from pacx.data.datasets import load_dataset
from pacx.data.datasets.symile_mimic import read_patients
from pacx.data.table import SPLITS, TERMS


def describe(name):
    """A row of the table, and the data set's own table."""
    if name == "symile-mimic":
        parts = {s: read_patients(run.data_root, s) for s in SPLITS}
        table = pd.concat([part.assign(split=s) for s, part in parts.items()])
        table = table.drop_duplicates(["study", "split"])
        task, labels = "pairs", []
    else:
        dataset = load_dataset(name, run.data_root)
        table, task, labels = dataset.table, dataset.task, [*dataset.labels]
    counts = table["split"].value_counts().reindex(SPLITS, fill_value=0)
    about = {"dataset": name, "task": task, "images": len(table), **counts}
    about["patients"] = table["patient"].nunique()
    about["positive"] = table[labels].mean().mean()
    return about | {"terms": TERMS[name]}, table


there = [name for name in TERMS if (run.data_root / name).is_dir()]
described = {k: describe(k) for k in there if k != "ecg-archive"}
tables = {name: table for name, (_, table) in described.items()}
cohort = pd.DataFrame([about for about, _ in described.values()])
counts = ["images", *SPLITS, "patients"]
cohort = run.save_results("cohort", declare(run, cohort, counts=counts))
show(cohort).format(dict.fromkeys(counts, "{:.0f}"), na_rep="–").format(
    "{:.0%}", subset=["positive"], na_rep="–"
)

# %% [markdown]
# ## No patient in two places
#
# Two {term}`leaks <Leakage>` would make every later number too good.
#
# **A patient with two X-rays could be in training and in the test.** The paper splits some data sets by
# image. This book splits by patient; `benchmark_split: paper` in a profile repeats the paper's choice.
# The table counts what each split leaks:

# %% mystnb={"code_prompt_show": "How a leak is counted"} tags=["hide-input"]
from IPython.display import display

from pacx.data.datasets import SPLIT_BY_IMAGE_IN_PAPER

twice, *shares = leaked = [
    "patients in two splits",
    "val images of trained patients",
    "test images of trained patients",
]


def leak(name, policy):
    """What a split gives away."""
    dataset = load_dataset(name, run.data_root, policy)
    trained = set(dataset.split("train")["patient"])
    row = [name, policy, len(dataset.patients_in_two_splits)]
    for split in ("val", "test"):
        row.append(dataset.split(split)["patient"].isin(trained).mean())
    return row


names = [name for name in SPLIT_BY_IMAGE_IN_PAPER if name in tables]
choice = [leak(name, how) for name in names for how in ("patient", "paper")]
if names:
    choice = pd.DataFrame(choice, columns=["dataset", "split", *leaked])
    choice = declare(run, choice, counts=[twice], derived=shares)
    run.save_results("split_leaks", choice)
    digits = {twice: "{:.0f}"} | dict.fromkeys(shares, "{:.0%}")
    display(show(choice).format(digits, na_rep="–"))

# %% [markdown]
# **A patient whose ECG and labs were distilled could be in a benchmark.** Symile-MIMIC, MedMod and CXL-Seg
# are made from patients of one hospital. The audit compares them by subject and by admission. In the rows of
# Symile-MIMIC's training split `shared` must be 0; the others are for information. In the phantom
# hospital each data set has patients of its own, so every row is 0; a check below plants some. The
# library counts what the loop counts by hand.

# %%
from pacx.data.datasets import load_populations
from pacx.data.splits import audit_overlaps

populations = load_populations(run)
overlaps = audit_overlaps(populations)
distilled = set(read_patients(run.data_root, "train")["patient"])
asked = "first == 'symile-mimic' and split == 'train' and by == 'subject'"
counted = overlaps.query(asked).set_index("second")["shared"]
others = {k: p for k, p in populations.items() if k != "symile-mimic"}
for name, people in others.items():
    shared = distilled & set(people["patient"])
    assert counted[name] == len(shared)

# %%
counts = ["in_first", "in_second", "shared"]
overlaps = run.save_results("overlaps", declare(run, overlaps, counts=counts))
folded(show(overlaps, digits=0), "All pairs of data sets")

# %% [markdown]
# All data sets of this run in one table:

# %% tags=["hide-input"]
audit = []
for name, table in tables.items():
    per = table.groupby("patient")
    several = int((per.size() > 1).sum())
    split = int((per["split"].nunique() > 1).sum())
    also = len(set(per.groups) & distilled)
    also = "–" if name == "symile-mimic" else also
    audit.append([name, several, split, also])
columns = ["dataset", "patients with several images"]
columns += ["patients in two splits", "also in the distillation"]
audit = pd.DataFrame(audit, columns=columns)
show(declare(run, audit, counts=columns[1:3]), digits=0)

# %% [markdown]
# Before every probe `refuse_leaks` looks for both leaks and stops at either. With `leaks: remove` a profile
# has distilled patients taken out of the benchmark first, which the profile for real data does; with
# `leaks: waive` the leak is only printed, and scores are not to be trusted.
#
# ## Check it yourself
#
# Each of these checks can fail. Try it: put
# `t = tables["chexchonet"]; t.loc[t["patient"].duplicated(), "split"] = "test"` above the code of the last
# table, and run that cell and this one again.

# %%
assert (audit["patients in two splits"] == 0).all()
pairs = tables["symile-mimic"]
assert not set(pairs.query("split == 'test'")["patient"]) & distilled

# The audit is not blind: it finds three patients planted in another set.
for name, people in list(others.items())[:1]:
    strangers = sorted(distilled - set(people["patient"]))[:3]
    planted = pd.concat([people, people[:3].assign(patient=strangers)])
    found = audit_overlaps(populations | {name: planted}).query(asked)
    assert found.set_index("second")["shared"][name] == counted[name] + 3

# The same seed must draw the same pictures.
first, again = (render_radiographs(patients, 64, seed=1)[0] for _ in "12")
assert (first == again).all()

# %%
# Exercise 1: effects along all paths, and the covariance they imply.
from pacx.phantom.state import state_covariance

names = list(EQUATIONS)
W = pd.DataFrame({k: e.parents for k, e in EQUATIONS.items()}, index=names)
total = np.linalg.inv(np.eye(len(names)) - W.fillna(0).to_numpy(float).T)
effect = total[names.index("fluid"), names.index("hypertension")]
to_dilation = W["hypertrophy"]["hypertension"] * W["dilation"]["hypertrophy"]
by_atrium = W["atrial_load"]["dilation"] * W["fluid"]["atrial_load"]
paths = to_dilation * (W["fluid"]["dilation"] + by_atrium)
paths += W["renal"]["hypertension"] * W["fluid"]["renal"]
np.testing.assert_allclose(effect, paths)
noise = np.diag([e.noise**2 for e in EQUATIONS.values()])
np.testing.assert_allclose(total @ noise @ total.T, state_covariance())
print("All checks passed.")

# %% [markdown]
# ## Summary
#
# Each patient is a set of hidden states with known causes, and the X-ray, the ECG and the blood tests all
# depend on them, as the rows of X-rays and the maps of weights in the appendix show. Three records become
# one row if they lie in the windows of the timeline. Which blood tests were ordered also says something
# about how sick the patient was. The last tables count how many patients are in two splits of a data set or in both the
# distillation and a benchmark; both counts must be 0 for any later number to be trusted.
#
# ## Exercises
#
# 1. Along which paths does hypertension reach fluid overload, and with which total weight? Compute the
#    total from the weights of `EQUATIONS` by code. Is it the covariance of the two?
#
# ```{dropdown} Answer
# Through hypertrophy and dilation; through loss of kidney function; and through hypertrophy, dilation
# and atrial load. The total is the sum of the three products of weights. With $W$ the matrix of the direct
# weights (rows are effects), $(I - W)^{-1} = I + W + W^2 + \dots$ adds up the paths of every length:
#
#     names = list(EQUATIONS)
#     W = pd.DataFrame({k: e.parents for k, e in EQUATIONS.items()}, index=names)
#     total = np.linalg.inv(np.eye(len(names)) - W.fillna(0).to_numpy(float).T)
#     total[names.index("fluid"), names.index("hypertension")]
#
# `pacx.phantom.state.state_covariance()` gives more, because age raises both: they go together more
# than one causes the other.
# ```
#
# 2. Two tests of one panel are missing together. Would it help a network more to know *that* a
#    value is missing, or to get a good guess of it?
#
# ```{dropdown} Answer
# The two differ. A guess from the other tests says what the value would be. That the value is missing says
# how sick the doctors thought the patient was. [Chapter 03](03_lab_autoencoder) measures what the pattern
# of ordered tests alone can tell.
# ```
#
# 3. Why is it not enough to remove the *admissions* of Symile-MIMIC from MedMod?
#
# ```{dropdown} Answer
# A patient can have several admissions. Chronic states such as kidney disease are the same in all
# of them, so another admission of a distilled patient is still a leak. Remove patients.
# ```
#
# ## Next
#
# [Chapter 02](02_cxr_mae) trains the X-ray encoder on these pictures, without any label.
#
# ## Appendix
#
# Details, folded: the equations, the weights in ECG and blood, twelve patients, the power spectrum, the
# coupling, lag and devices, the pairing in SQL, notes on data sets, the files on disk, and the check of a
# data set.
#
# ### The equations
#
# They are printed from the same table that samples the patients (`pacx.phantom.state.EQUATIONS`), so they
# cannot disagree with the data.

# %% mystnb={"code_prompt_show": "All equations"} tags=["hide-cell"]
from IPython.display import Math

from pacx.figures.graph import equations_as_latex

declare(run, Math(equations_as_latex(EQUATIONS)))

# %% [markdown]
# ### Weights of the states in ECG and blood
#
# The phantoms follow two tables, `pacx.phantom.ecg.TRAITS` and `pacx.phantom.labs.ANALYTES`. Each trait of
# the ECG and each substance in the blood is, like a state, a weighted sum of states and of noise of its
# own. A weight says by how many of its standard deviations a trait or substance moves when the state rises
# by one. White is no weight: a state whose row is white in a map reaches that record only through other
# states. *pr* and *qrs* are durations, *st* and *t* heights of the ECG's last parts, and *rotation* is that
# of the heart. Tests that are not in the right map, such as the haematocrit, are computed from those that are.

# %% mystnb={"image": {"alt": "Two heat maps with the states as rows. The columns are traits of the ECG on the left and substances in the blood on the right. Red weights raise, blue ones lower. Hypertrophy acts on the most traits of the ECG, inflammation and fluid on the most substances. Hypertension acts on nothing directly."}} tags=["hide-input"]
import matplotlib.pyplot as plt
import seaborn as sns

from pacx.phantom.ecg import TRAITS
from pacx.phantom.labs import ANALYTES

weights = {
    "trait of the ECG": pd.DataFrame({name: trait[2] for name, trait in TRAITS.items()}),
    "substance in the blood": pd.DataFrame({name: a.weights for name, a in ANALYTES.items()}),
}
ratios = [table.shape[1] for table in weights.values()]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), sharey=True, width_ratios=ratios)
colours = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "linewidths": 0.4, "linecolor": "0.9"}
for axis, (title, table) in zip(axes, weights.items(), strict=True):
    table = table.reindex(EQUATIONS).rename(label_of).rename(columns=label_of)
    bar = {"cbar": axis is axes[1], "cbar_kws": {"label": "weight (standard deviations)"}}
    sns.heatmap(table, ax=axis, xticklabels=True, **colours, **bar)
    axis.tick_params(axis="x", labelsize=8, rotation=90)
    axis.set(xlabel=title, ylabel="state" if axis is axes[0] else "")
axes[1].tick_params(axis="y", length=0)
_ = declare(run, figure)

# %% [markdown]
# ### Twelve patients
#
# No two patients have the same proportions: all shapes are shifted, turned, stretched and bent at random.
# Breathing, exposure, scattered radiation, the texture of lung and bone, the detector's blur and noise, the
# lines of a grid, shutters, devices, and a lead letter L on the patient's left come on top. **What a linear
# model of the pixels could use, brightness in a fixed place, is mostly gone**; in earlier editions such a
# model did better on the phantoms than any network. Each shape is a function of continuous coordinates, so
# one patient can be drawn at any size.

# %% mystnb={"image": {"alt": "Twelve phantom chest X-rays in three rows. Thin coloured lines trace the outlines of the lungs and the heart; some patients have pacemakers, tubes and wires. Heart size, proportions, exposure and rotation differ from patient to patient."}}
films, masks = render_radiographs(patients, 256, seed=1, masks=True)
titles = [f"{p.sex}, {p.age_years} years" for p in patients.itertuples()]
outlines = {organ: masks[organ] for organ in ("lungs", "heart")}
figure = montage(films, titles, 4, outlines)
_ = declare(run, figure)  # phantoms in every run

# %% [markdown]
# ### Do they look like X-rays?
#
# To the eye phantoms are drawings. But how much of an image lies in coarse and how much in fine structure can
# be compared: the **power spectrum** below is the mean squared strength of each number of waves across
# the image, at the size that this book's encoders see. The real X-rays are of NIH ChestX-ray14
# {cite:p}`wang2017chestxray8`; no image of theirs is here, only their mean spectrum. The band is half to
# twice the real power. A spectrum does not say *where* things are, so it can show that phantoms are
# wrong, never that they are right.
# `python benchmarks/spectrum.py --real FOLDER` repeats the measurement with a folder of X-rays of your
# own; the committed one is in the book's repository, not in the package. Whether phantoms can tell a network
# from a linear model is another question, which `pacx accept` asks ([protocol](../book/protocol)).

# %% mystnb={"code_prompt_show": "The two spectra", "image": {"alt": "Two falling curves of power against the number of waves across the image, on logarithmic axes, one of real X-rays with a band of half to twice its value, and one of phantoms."}} tags=["hide-cell"]
import json
from pathlib import Path

import pacx
from pacx.figures.style import COLOURS

file = Path(pacx.__file__).parents[1] / "book" / "benchmarks" / "spectrum.json"
if file.is_file():
    spectrum = json.loads(file.read_text())
    waves, power = spectrum["frequency"], spectrum["power"]
    real = np.array(power["real"])
    figure, axis = plt.subplots(figsize=(6.5, 3.4))
    axis.fill_between(waves, real / 2, real * 2, color=COLOURS["blue"], alpha=0.15, linewidth=0)
    axis.loglog(waves, real, color=COLOURS["blue"], label="real X-rays")
    axis.loglog(waves, power["phantom"], "--", color=COLOURS["vermilion"], label="phantoms")
    axis.set(xlabel="waves across the image", ylabel="power (squared grey values)")
    axis.legend()
    declare(run, figure)

# %% [markdown]
# ### Coupling
#
# The {term}`coupling` is 1 in all runs of this book; `pacx accept` also tries 0
# ([protocol](../book/protocol)), where the picture does not depend on the patient's state, and no
# distillation could help. The ratio of the heart's width to that of the lungs, measured on the exact masks,
# shows the difference. It is no cardiothoracic ratio: the lungs are counted without the mediastinum, so the
# limit of one half does not apply. At coupling 1 the points still scatter, because positioning and build
# move the heart as well. The square of the correlation is the share of the ratio's variance that the state
# explains.

# %%
many = sample_patients(300, seed + 2)
ratios, rows = {}, []
for strength in (0.0, 1.0):
    how = {"masks": True, "coupling": strength}
    mask = render_radiographs(many, 96, seed=4, **how)[1]
    organs = mask["heart"], mask["lungs"]
    heart, lungs = (m.any(axis=1).sum(axis=1) for m in organs)  # widths
    ratios[strength] = heart / lungs
    r = np.corrcoef(many["dilation"], ratios[strength])[0, 1]
    rows.append({"coupling": strength, "correlation": r})
coupling = run.save_results("coupling", pd.DataFrame(rows))
assert abs(coupling["correlation"]).idxmax() == 1, "coupling must show"
show(coupling, digits=2)

# %% mystnb={"code_prompt_show": "The ratio against the state", "image": {"alt": "Two scatter plots of the heart's width divided by the lungs' width against the state dilation. With coupling 0 the points form a level cloud, with coupling 1 the ratio rises with dilation."}} tags=["hide-cell"]
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for axis, (strength, ratio) in zip(axes, ratios.items(), strict=True):
    axis.plot(many["dilation"], ratio, ".", color=COLOURS["green"], alpha=0.6)
    axis.set(title=f"coupling {strength:g}", xlabel="dilation (standard deviations)")
axes[0].set_ylabel("width of heart / lungs")
_ = declare(run, figure)

# %% [markdown]
# ### Devices, and the lag
#
# The table has the share of patients with each fact, and the states that make it likelier, as weights in a
# probit (a threshold on their weighted sum plus noise). The profile says how long the lag is on average
# and how fast the states drift.

# %%
from pacx.phantom.state import FACTS

facts = []
for fact, (share, by_state) in FACTS.items():
    likelier = [f"{s} ({w:+g})" for s, w in by_state.items()]
    facts.append([fact, f"{share:.0%}", ", ".join(likelier)])
columns = ["what the picture shows", "patients", "likelier with"]
words = {"ap_view": "AP view", "_": " "}
show(pd.DataFrame(facts, columns=columns).replace(words, regex=True))

# %% [markdown]
# How much of an acute state remains, as the correlation with its value at the time of the X-ray:

# %%
phantom = run.profile.phantom
days = np.array([0, phantom.lag_days, 4])
kept = np.exp(-phantom.drift * days)
show(pd.DataFrame({"days after the X-ray": days, "correlation": kept}), 2)

# %% [markdown]
# ### The pairing in SQL
#
# If you have the raw tables, run `pacx pair`. (The phantom hospital writes pairs directly, one row an
# admission, so the rule has nothing to do there. Its lag runs the other way, from the X-ray to ECG and
# labs; what matters to the method is that time lies between them.) The rule is written in
# [DuckDB](https://duckdb.org), which reads the compressed files where they lie and writes to disk
# what does not fit the memory. Each statement makes the table it is named after. Between them Python
# looks whether files are there and hold a signal; afterwards it divides patients into splits and writes
# the arrays.
#
# **X-rays.** In words: of all images keep those from the front ({term}`AP`, {term}`PA`) and put date and
# time together; join them to the patient's admissions; keep those more than 24 and at most 72 hours after.
# Now each path is looked up, and rows without a file are deleted. Of what is left an admission keeps its
# earliest image (of two at the same second, the first in the file). If the table of findings lacks that
# image's study, the admission is lost, even if a later image has one.

# %% mystnb={"code_prompt_show": "SQL"} tags=["hide-cell"]
from pacx.figures.source import show_sql
from pacx.pairing.admissions import STEPS

show_sql(*(STEPS[name] for name in ("frontal_xrays", "xrays_in_time", "with_xray")))

# %% [markdown]
# **ECGs.** Of the ECGs of these patients keep those at most 24 hours before or after admission.
# Each is opened, and one that is all zero or has a gap is deleted. The earliest is taken.

# %% mystnb={"code_prompt_show": "SQL"} tags=["hide-cell"]
show_sql(*(STEPS[name] for name in ("ecgs", "ecgs_in_time", "with_ecg")))

# %% [markdown]
# **Labs.** MIMIC's largest table is read once, and only rows that can matter are kept: one of the 50 tests,
# a number, a patient not yet excluded. Of each test the earliest value in the window counts. The last
# statement turns rows into columns; an admission without any test drops out.

# %% mystnb={"code_prompt_show": "SQL"} tags=["hide-cell"]
show_sql(*(STEPS[name] for name in ("lab_values", "labs_in_time", "pairs")))

# %% [markdown]
# ### Notes on data sets
#
# `phantom-truth` has no real counterpart. Its labels are read off the true states: 1 where a state plus
# some noise passes a threshold that most patients stay below. What only the picture shows, such as a
# tube, is a label as it is; rotation is one beyond a limit. Its test split of another hospital, `shifted`,
# is not counted here.
#
# The ECG archive of [chapter 04](04_ecg_teacher) has no X-rays and is not in this table. ChestX6,
# COVID-QU-Ex, VinDr-CXR and a part of QaTa-COV19 carry no patient numbers, there or here: each image
# counts as a patient, and more cannot be checked. TB names a patient by the file of its only X-ray.

# %% [markdown]
# ### What lies on disk
#
# This is Symile-MIMIC; of several folders only the first is opened. One row of `train.csv` holds the blood
# tests in their units and as percentiles of the training split. An empty place is a test without a result.
# (In a book about real data both outputs are withheld.)

# %% mystnb={"code_prompt_show": "Files, and the first rows"} tags=["hide-cell"]
from pacx.figures.source import show_tree

names = {str(lab.itemid): f"{lab.name} ({lab.unit})" for lab in LABS}
names["50912_percentile"] = "Creatinine (percentile)"
columns = ["subject_id", "hadm_id", "50912", "50971", "51222", "50912_percentile"]
first = pd.read_csv(symile / "train.csv", nrows=4)[columns].rename(columns=names)
display(show_tree(symile, most=8), first.style.hide().format(precision=2))

# %% [markdown]
# ### The check of a data set
#
# Before you trust a data set, yours or ours, let it be checked: `pacx data check NAME --root DIR`.
# The command looks for every file, decodes images, counts, and ends with an error when something would
# spoil a result. This is what it counts in this run's first benchmark:

# %%
from pacx.pairing.check import check_dataset

checked = check_dataset(run.profile.benchmarks[0], run.data_root, most=500)
people = declare(run, checked.splits, counts=["images", "patients"])
how = {"counts": ["positive", "known"], "of": "known", "derived": ["share"]}
positive = declare(run, checked.prevalence, **how)
problems = pd.DataFrame([{"problems found": len(checked.problems)}])
display(show(people), show(positive), show(problems))

# %% mystnb={"code_prompt_show": "Some of its X-rays", "image": {"alt": "Twenty-four X-rays of the first benchmark, evenly spread over the data set."}} tags=["hide-cell"]
figure = montage(checked.tiles, [""] * len(checked.tiles), columns=8)
_ = declare(run, figure, checked.name)

# %% [markdown]
# ## References
#
# Pairing: {cite:p}`saporta2024symile`. MIMIC:
# {cite:p}`johnson2023mimiciv,johnson2019mimiccxrjpg,gow2023mimicivecg`. X-rays of stage 1:
# {cite:p}`irvin2019chexpert`. Benchmarks: those of [chapter 06](06_clinical_transfer). The paper:
# {cite:p}`liu2026pacx`.
