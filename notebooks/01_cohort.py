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
# uses, what causes them, how they lie on disk, and why no patient is in two places at once.

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

run = open_chapter(profile, runs, needs="symile-mimic")
banner(run)

# %% [markdown]
# ## What you will learn
#
# - Which hidden states a phantom patient has, and which causes which.
# - What one patient looks like in three modalities.
# - Why a blood test that was *not* ordered is information.
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
# The figure and the equations below are printed from the same table that samples the patients
# (`pacx.phantom.state.EQUATIONS`), so they cannot disagree with the data.

# %% tags=["remove-input"]
from IPython.display import Markdown, Math, display

from pacx.figures.graph import equations_as_latex

display(Math(equations_as_latex(EQUATIONS)))

# %% [markdown]
# The same table says what each state stands for:

# %% tags=["hide-input"]
import pandas as pd

from pacx.figures.tables import show

meanings = {state.replace("_", " "): equation.meaning for state, equation in EQUATIONS.items()}
show(pd.DataFrame(meanings.items(), columns=["state", "what it means"]))

# %% [markdown]
# ## What they look like
#
# An X-ray is drawn from shapes: body, lungs, heart, vessels, ribs, devices. The states move and
# darken these shapes a little. Much more of the picture is no matter of the states: no two patients
# have the same proportions, so all shapes are shifted, turned, stretched and bent at random; breathing,
# exposure, scattered radiation, the texture of lung and bone, the detector's blur and noise, the lines
# of a grid, shutters, devices, and a lead letter L on the patient's left come on top. **What a linear
# model of the pixels could use, brightness in a fixed place, is mostly gone**; earlier editions of this
# book had phantoms that such a model reads better than any network. Because each shape is a function of
# continuous coordinates, one patient can be drawn at any size, and the masks of the organs stay exact.
# Here are some patients, large enough to look at.

# %%
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients

patients = sample_patients(12, seed=run.profile.phantom.seed)
films, masks = render_radiographs(patients, 256, seed=1, masks=True)

# %% mystnb={"image": {"alt": "Twelve phantom chest X-rays in three rows. Thin coloured lines trace the outlines of the lungs, the heart and, where there are any, pacemakers, tubes and wires. Heart size, proportions, exposure and rotation differ from patient to patient."}} tags=["hide-input", "public"]
from pacx.figures.cxr import montage

titles = [f"{p.sex}, {p.age_years} years" for p in patients.itertuples()]
figure = montage(films, titles, 4, masks={k: masks[k] for k in ("lungs", "heart", "devices")})

# %% [markdown]
# ## Do they look like X-rays?
#
# To the eye they are drawings. But how much of an image lies in coarse and how much in fine structure can
# be compared: the **power spectrum** below is the mean squared strength of each number of waves across
# the image, at the size that this book's encoders see. The real X-rays are of NIH ChestX-ray14
# {cite:p}`wang2017chestxray8`; no image of theirs is here, only their mean spectrum. The band is half to
# twice the real power. A spectrum does not say *where* things are, so it can show that phantoms are
# wrong, never that they are right.

# %% mystnb={"image": {"alt": "Two falling curves of power against the number of waves across the image, on logarithmic axes, one of real X-rays with a band of half to twice its value, and one of phantoms."}} tags=["hide-input"]
import json
from pathlib import Path

import matplotlib.pyplot as plt

import pacx
from pacx.figures.style import COLOURS

file = Path(pacx.__file__).parents[1] / "book" / "benchmarks" / "spectrum.json"
if file.is_file():
    spectrum = json.loads(file.read_text())
    waves, power = spectrum["frequency"], spectrum["power"]
    real = pd.Series(power["real"])
    figure, axis = plt.subplots(figsize=(6.5, 3.4))
    axis.fill_between(waves, real / 2, real * 2, color=COLOURS["blue"], alpha=0.15, linewidth=0)
    axis.loglog(waves, real, color=COLOURS["blue"], label="real X-rays")
    axis.loglog(waves, power["phantom"], "--", color=COLOURS["vermilion"], label="phantoms")
    axis.set(xlabel="waves across the image", ylabel="power (squared grey values)")
    axis.legend()
else:
    display(Markdown("The measurement is in the book's repository, not in the package."))

# %% [markdown]
# `python benchmarks/spectrum.py --real FOLDER` repeats the measurement with a folder of X-rays of your
# own. Whether phantoms can tell a network from a linear model is another question, which
# `pacx accept` asks ([protocol](../book/protocol)).
#
# ## One patient, three modalities
#
# All three records depend on the same hidden states. That is the only thing that the method
# can use: what the ECG and the blood say about a state, the X-ray may show as well. The patient
# below is the one with the most fluid in a crowd.

# %%
crowd = sample_patients(200, seed=run.profile.phantom.seed + 1)
patient = crowd.nlargest(1, "fluid")

# %% mystnb={"image": {"alt": "Chest X-ray of one phantom patient with a lot of fluid, next to the same X-ray with outlines of lungs, heart and bones."}} tags=["hide-input", "public"]
film, mask = render_radiographs(patient, 384, seed=2, masks=True)
about = f"{patient['sex'].item()}, {patient['age_years'].item()} years"
figure = montage(
    film.repeat(2, axis=0),
    [about, "lungs, heart, bones"],
    columns=2,
    masks={
        k: mask[k].repeat(2, axis=0) & [[[False]], [[True]]] for k in ("lungs", "heart", "bones")
    },
)
figure.set_size_inches(6.4, 3.7)

# %% [markdown]
# The ECG, on the paper that a cardiologist expects: 25 mm/s and 10 mm/mV, so a small square is
# 0.04 s wide and 0.1 mV high.

# %% mystnb={"image": {"alt": "Twelve-lead ECG of the same phantom patient on red-lined paper, three rows of four leads and a rhythm strip of lead II, 25 millimetres a second and 10 millimetres a millivolt."}}
from pacx.constants import LEADS_MIMIC
from pacx.figures.ecg import ecg_paper
from pacx.phantom.ecg import render_ecgs

ecg = render_ecgs(patient, 500, seed=2)[0]
figure = ecg_paper(ecg, LEADS_MIMIC, 500, f"Phantom patient, {about}")

# %% [markdown]
# And the blood tests. The band runs from the low to the high end of each test's own
# {term}`reference range`; the number on the right is the value. A triangle lies beyond the drawn scale.
# A cross marks a test without a result, mostly because nobody ordered it; where it stands means
# nothing. H, I and L are the indices of haemolysis, icterus and lipaemia.

# %% mystnb={"image": {"alt": "Panel of fifty blood tests of the same phantom patient in two columns. Dots show where a value lies relative to its reference range, ones of another colour lie outside. Crosses mark tests without a result."}}
from pacx.figures.labs import lab_panel
from pacx.phantom.labs import draw_labs

figure = lab_panel(draw_labs(patient, seed=2)[0])

# %% [markdown]
# ## Which state shows in which record
#
# Two more tables, `pacx.phantom.ecg.TRAITS` and `pacx.phantom.labs.ANALYTES`, lead from the states to the
# records. Each trait of the ECG and each substance in the blood is, like a state, a weighted sum of
# states and of noise of its own. A weight says by how many of its standard deviations a trait or
# substance moves when the state rises by one. White is no weight: a state whose row is white in a map
# reaches that record only through others. The names are those of the code. `pr` and `qrs` are durations,
# `st` and `t` heights of the ECG's last parts, and `rotation` is that of the heart. Tests that are not in
# the right map, such as the haematocrit, are computed from those that are.

# %% mystnb={"image": {"alt": "Two heat maps with the states as rows. The columns are traits of the ECG on the left and substances in the blood on the right. Red weights raise, blue ones lower. Hypertrophy acts on the most traits of the ECG, inflammation and fluid on the most substances. Hypertension acts on nothing directly."}} tags=["hide-input", "public"]
import seaborn as sns

from pacx.phantom.ecg import TRAITS
from pacx.phantom.labs import ANALYTES

weights = {
    "trait of the ECG": {trait: by_state for trait, (_, _, by_state, _) in TRAITS.items()},
    "substance in the blood": {name: analyte.weights for name, analyte in ANALYTES.items()},
}
words = {name: name.replace("_", " ") for name in (*EQUATIONS, *TRAITS)}
sizes = [len(columns) for columns in weights.values()]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), sharey=True, width_ratios=sizes)
for axis, (title, columns) in zip(axes, weights.items(), strict=True):
    table = pd.DataFrame(columns).reindex(EQUATIONS).rename(index=words, columns=words)
    sns.heatmap(
        table, ax=axis, cmap="RdBu_r", vmin=-1, vmax=1, linewidths=0.4, linecolor="0.9",
        xticklabels=True, cbar=axis is axes[1],
        cbar_kws={"label": "weight (standard deviations\nper standard deviation)"},
    )  # fmt: skip
    axis.tick_params(axis="x", labelsize=7, rotation=90)
    axis.set(xlabel=title, ylabel="state" if axis is axes[0] else "")
axes[1].tick_params(axis="y", length=0)

# %% [markdown]
# ## What the X-ray shows of a state
#
# The X-ray has no such table: a state, with a little noise of the picture's own, moves and darkens shapes
# in `pacx.phantom.radiograph`. Here one patient is drawn five times for each of four states. In a row
# positioning and noise stay, all other states are 0, and one moves from −2 to +2. With dilation the heart widens. With fluid
# the upper vessels thicken, the lungs haze and their angles fill. With COPD the lungs lengthen and darken.
# With anaemia heart and vessels fade; this sign is our invention, borrowed from CT: nobody reads anaemia
# off a real chest X-ray in this way. The changes are small on purpose: that is what the encoder has to
# find.

# %% mystnb={"image": {"alt": "Four rows of five X-rays of one phantom patient. From left to right one state rises from minus two to plus two. With dilation the heart widens, with fluid the lungs haze and their angles fill, with obstructive disease the lungs lengthen and darken, with anaemia heart and vessels fade."}} tags=["hide-input", "public"]
shown, steps = ("dilation", "fluid", "copd", "anaemia"), (-2, -1, 0, 1, 2)
plain = crowd[~crowd[["pacemaker", "tube", "pneumothorax"]].any(axis=1)].iloc[[0]]
average = plain.assign(**dict.fromkeys(EQUATIONS, 0.0))
versions = pd.concat([average.assign(**{state: step}) for state in shown for step in steps])
films = [render_radiographs(versions.iloc[[i]], 192, seed=3)[0][0] for i in range(len(versions))]
figure = montage(
    films, [f"{state} {step:+d}".replace("+0", "0") for state in shown for step in steps], columns=5
)

# %% [markdown]
# How strongly a picture shows the states is one number of the phantom, the {term}`coupling`. It is 1 in
# all runs of this book; the evidence of [chapter 09](09_components) also tries lower ones. At 0 the
# picture knows nothing of the patient's state, and no distillation could help. The ratio of the heart's
# width to that of the lungs, measured on the exact masks, shows the difference. It is no cardiothoracic
# ratio: the lungs are counted without the mediastinum, so the limit of one half does not apply. At
# coupling 1 the points still scatter, because positioning and build move the heart as well.

# %% mystnb={"image": {"alt": "Two scatter plots of the heart's width divided by the lungs' width against the state dilation. With coupling 0 the points form a level cloud, with coupling 1 the ratio rises with dilation."}} tags=["hide-input"]
many = sample_patients(300, seed=run.profile.phantom.seed + 2)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
rows = []
for axis, coupling in zip(axes, (0.0, 1.0), strict=True):
    _, mask = render_radiographs(many, 96, seed=4, masks=True, coupling=coupling)
    width = {organ: mask[organ].any(axis=1).sum(axis=1) for organ in ("heart", "lungs")}
    ratio = width["heart"] / width["lungs"]
    axis.plot(many["dilation"], ratio, ".", color=COLOURS["green"], alpha=0.6)
    axis.set(title=f"coupling {coupling:g}", xlabel="dilation (standard deviations)")
    rows.append({"coupling": coupling, "correlation": many["dilation"].corr(pd.Series(ratio))})
axes[0].set_ylabel("width of heart / lungs")
coupling = run.save_results("coupling", pd.DataFrame(rows))

# %% [markdown]
# ## What could mislead a model
#
# Real records differ in more than the disease, so phantoms do, too.
#
# - **A lag.** ECG and blood of a phantom are taken some time after its X-ray, and acute states (fluid,
#   inflammation, potassium, anaemia) move on in between. The labels and the true states are those of the
#   X-ray's time. The profile says how long the lag is on average and how fast the states drift.
# - **A {term}`shortcut`.** Sicker patients carry devices and lie down for their X-ray ({term}`AP`) more
#   often. The first table has the share of patients with each fact, and the states that make it likelier,
#   as weights in a probit. A probe can read the device instead of the disease.
# - **Another hospital.** `phantom-truth` has a second test split, `shifted` ({term}`shifted test split`),
#   with another exposure and more devices and AP views, whoever the patient is.

# %% tags=["hide-input"]
from pacx.phantom.state import FACTS

show(
    pd.DataFrame(
        {
            "what the picture shows": fact.replace("_", " ").replace("ap view", "AP view"),
            "share of patients": f"{share:.0%}",
            "likelier with": ", ".join(f"{state} ({w:+g})" for state, w in weights.items()),
        }
        for fact, (share, weights) in FACTS.items()
    )
)

# %% [markdown]
# What is left of an acute state, as its correlation with the value at the time of the X-ray:

# %% tags=["hide-input"]
import numpy as np

phantom = run.profile.phantom
days = np.array([0, phantom.lag_days, 4])
kept = np.exp(-phantom.drift * days)
show(pd.DataFrame({"days after the X-ray": days, "correlation": kept}), digits=2)

# %% [markdown]
# ## What is missing tells something
#
# A blood gas is drawn when a patient struggles for breath. So *whether* a test exists depends on
# how sick the patient is: what is missing is **informative**. In the phantom hospital tests come
# in panels, and
#
# $$ P(\text{panel ordered} \mid z) = \operatorname{sigmoid}\Big(a + \sum_k b_k z_k\Big). $$
#
# The figure reads it back from the data on disk. Each panel is set against the state that drives it
# most, by its weight $b_k$; the sigmoid squeezes any number into the range from 0 to 1.
# [Chapter 03](03_lab_autoencoder) must therefore tell the network what was {term}`Observed`.

# %% mystnb={"image": {"alt": "Share of patients in the training split of Symile-MIMIC who had a panel of blood tests, against the state that drives it. One line each for the blood gas, differential, coagulation and muscle panels, with 95 percent intervals."}} tags=["hide-input"]
from pacx.constants import LABS
from pacx.figures.labs import ordering_curves
from pacx.phantom.labs import PANELS

symile = run.data_root / "symile-mimic"
observed = np.load(symile / "data_npy" / "train" / "labs_missingness_train.npy") == 1
if run.is_phantom:
    truth = pd.read_csv(symile / "data_npy" / "train" / "truth.csv")
    column = {lab.name: k for k, lab in enumerate(LABS)}
    panels = {}
    for panel in ("blood gas", "differential", "coagulation", "muscle"):
        weight = PANELS[panel].sickness
        state = max(weight, key=lambda name: abs(weight[name]))
        ordered = observed[:, [column[name] for name in PANELS[panel].labs]].any(axis=1)
        panels[f"{panel} (by {state.replace('_', ' ')})"] = (
            truth[f"state_{state}"].to_numpy(),
            ordered,
        )
    figure = ordering_curves(panels, "state of the patient (standard deviations)")
else:
    display(Markdown("No figure: the true state of real patients is not known."))

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
# An admission without all three is left out. The X-ray is the *latest* of the three: the ECG and
# the blood precede the picture that is taught to know them. Up to 96 hours can lie between them, and
# what is acute may have been treated by then.

# %% mystnb={"image": {"alt": "Timeline in hours since admission. X-rays count from hour 24 to 72, ECGs and labs from hour minus 24 to 24. In each window the earliest record, a filled dot, is taken and later ones, hollow dots, are left out."}} tags=["hide-input"]
from pacx.figures.graph import pairing_timeline

figure = pairing_timeline()

# %% [markdown]
# If you have the raw tables, run `pacx pair`. Its rule is the SQL below, in
# [DuckDB](https://duckdb.org), which reads the compressed files where they lie and writes to disk
# what does not fit the memory. Each statement makes the table it is named after. Between them Python
# looks whether files are there and hold a signal; afterwards it divides patients into splits and writes
# the arrays.
#
# **X-rays.** Read aloud: of all images keep those from the front ({term}`AP`, {term}`PA`) and put date
# and time together; join them to the patient's admissions; keep those more than 24 and at most 72 hours
# after. Now each path is looked up, and rows without a file are deleted. Of what is left an admission
# keeps its earliest image (of two at the same second, the first in the file). If the table of findings
# lacks that image's study, the admission is lost, even if a later image has one.

# %% tags=["remove-input"]
from pacx.figures.source import show_sql
from pacx.pairing.admissions import STEPS

show_sql(*(STEPS[name] for name in ("frontal_xrays", "xrays_in_time", "with_xray")))

# %% [markdown]
# **ECGs.** Of the ECGs of these patients keep those at most 24 hours before or after admission.
# Each is opened, and one that is all zero or has a gap is deleted. The earliest is taken.

# %% tags=["remove-input"]
show_sql(*(STEPS[name] for name in ("ecgs", "ecgs_in_time", "with_ecg")))

# %% [markdown]
# **Labs.** MIMIC's largest table is read once, and only rows that can matter are kept: one of the
# 50 tests, a number, a patient who is still in. Of each test the earliest value in the window
# counts. The last statement turns rows into columns; an admission without any test drops out.

# %% tags=["remove-input"]
show_sql(*(STEPS[name] for name in ("lab_values", "labs_in_time", "pairs")))

# %% [markdown]
# The phantom hospital writes pairs directly, one row an admission, so this rule has nothing to do
# there. Its lag runs the other way, from the X-ray to ECG and labs; what matters to the method is that the
# records are apart.
#
# ## What lies on disk
#
# The phantom hospital writes every data set in the layout of the real one. The loaders do not know
# the difference. This is Symile-MIMIC; of several folders only the first is opened.

# %% tags=["remove-input"]
from pacx.figures.source import show_tree

show_tree(symile, most=8)

# %% [markdown]
# One row of `train.csv` holds the blood tests in their units and as percentiles of the training
# split. An empty place is a test without a result.

# %% tags=["hide-input"]
columns = ["subject_id", "hadm_id", "50912", "50971", "51222", "50912_percentile"]
names = {str(lab.itemid): f"{lab.name} ({lab.unit})" for lab in LABS}
names["50912_percentile"] = "Creatinine (percentile)"
if run.is_phantom:
    admissions = pd.read_csv(symile / "train.csv", nrows=4)
    display(admissions[columns].rename(columns=names).style.hide(axis="index").format(precision=2))
else:
    display(Markdown("No rows: records of real patients are not shown."))

# %% [markdown]
# ## All data sets of this run
#
# A row is one data set. *Positive* is the share of positive labels among the known ones, averaged
# over labels. *Terms* are those of the real data set: patients of one that is not open are never
# shown in a book, and counts of fewer than ten of them are left out.

# %% tags=["hide-input"]
from pacx.book.privacy import show_or_withhold, suppress_small
from pacx.data.datasets import load_dataset
from pacx.data.datasets.symile_mimic import read_patients
from pacx.data.table import TERMS

tables, rows = {}, []
for name in [n for n in TERMS if n != "ecg-archive" and (run.data_root / n).is_dir()]:
    if name == "symile-mimic":
        parts = [read_patients(run.data_root, s).assign(split=s) for s in ("train", "val", "test")]
        tables[name] = pd.concat(parts).drop_duplicates(["study", "split"])
        task, positive = "pairs", float("nan")
    else:
        dataset = load_dataset(name, run.data_root)
        tables[name], task = dataset.table, dataset.task
        positive = (
            dataset.table[list(dataset.labels)].mean().mean() if dataset.labels else float("nan")
        )
    table = tables[name]
    counts = {split: (table["split"] == split).sum() for split in ("train", "val", "test")}
    rows.append({"dataset": name, "task": task, "images": len(table), **counts,
                 "patients": table["patient"].nunique(), "positive": positive, "terms": TERMS[name]})  # fmt: skip
cohort = suppress_small(run, pd.DataFrame(rows), "images", *counts, "patients")
run.save_results("cohort", cohort)
counted = dict.fromkeys(["images", *counts, "patients"], "{:.0f}")
display(cohort.style.hide(axis="index").format(counted | {"positive": "{:.0%}"}, na_rep="–"))

# %% [markdown]
# `phantom-truth` has no real counterpart. Its labels are read off the true states: 1 where a state plus
# some noise passes a threshold that most patients stay below. What only the picture shows, such as a
# tube, is a label as it is; rotation is one beyond a limit. Its test split of another hospital, `shifted`,
# is not counted here.
#
# The ECG archive of [chapter 04](04_ecg_teacher) has no X-rays and is not in this table. ChestX6,
# COVID-QU-Ex, VinDr-CXR and a part of QaTa-COV19 carry no patient numbers, there or here: each image
# counts as a patient, and nobody can check more. TB names a patient by the file of its only X-ray.
#
# Before you trust a data set, yours or ours, let it be checked: `pacx data check NAME --root DIR`.
# It looks for every file, decodes images, counts, and ends with an error when something would
# spoil a result. This is what it says of this run's first benchmark:

# %%
from pacx.pairing.check import check_dataset

checked = check_dataset(run.profile.benchmarks[0], run.data_root, most=500)

# %% tags=["hide-input"]
if run.is_phantom:
    print(str(checked).replace(str(run.data_root), "data"))
else:  # notes and problems may name files of patients
    display(show(suppress_small(run, checked.splits, "images", "patients")))
    hidden = {"of": "known", "derived": ["share"]}
    display(show(suppress_small(run, checked.prevalence, "positive", "known", **hidden)))
    display(Markdown(f"{len(checked.problems)} problem(s) found."))

# %% mystnb={"image": {"alt": "Twenty-four X-rays of the first benchmark, evenly spread over the data set."}} tags=["hide-input", "public"]
figure = montage(checked.tiles, [""] * len(checked.tiles), columns=8)
show_or_withhold(run, figure, "01_first_benchmark", checked.name)

# %% [markdown]
# ## No patient in two places
#
# Two {term}`leaks <Leakage>` would make every later number too good. A patient with two X-rays could be
# in training *and* in the test. And a patient whose ECG and labs were distilled could turn up in a
# benchmark from the same hospital.
#
# **The first leak is a choice of split.** The paper splits some data sets by image. This book splits
# by patient; `benchmark_split: paper` in a profile repeats the paper's choice. What it leaks:

# %% tags=["hide-input"]
from pacx.data.datasets import SPLIT_BY_IMAGE_IN_PAPER

rows = []
for name in [name for name in SPLIT_BY_IMAGE_IN_PAPER if name in tables]:
    for policy in ("patient", "paper"):
        dataset = load_dataset(name, run.data_root, policy)
        trained = set(dataset.split("train")["patient"])
        rows.append(
            {
                "dataset": name,
                "split": policy,
                "patients in two splits": len(dataset.patients_in_two_splits),
                **{
                    f"{split} images of trained patients": dataset.split(split)["patient"]
                    .isin(trained)
                    .mean()
                    for split in ("val", "test")
                },
            }
        )
choice, (twice, *shares) = pd.DataFrame(rows), list(rows[0])[2:]
choice = run.save_results("split_leaks", suppress_small(run, choice, twice, derived=shares))
shown = {twice: "{:.0f}"} | dict.fromkeys(shares, "{:.0%}")
display(choice.style.hide(axis="index").format(shown, na_rep="–"))

# %% [markdown]
# **The second leak is one hospital under three names.** Symile-MIMIC, MedMod and CXL-Seg are made
# from patients of one hospital. The audit compares them by subject and by admission. In the rows of
# Symile-MIMIC's training split `shared` must be 0, or distilled physiology comes back in a test; the
# others are for information. In the phantom hospital each data set has patients of its own, so every row
# is 0; a check below plants some.

# %%
from pacx.data.datasets import load_populations
from pacx.data.splits import audit_overlaps

overlaps = audit_overlaps(load_populations(run))

# %% tags=["hide-input"]
counted = suppress_small(run, overlaps, "in_first", "in_second", "shared")
display(show(run.save_results("overlaps", counted), digits=0))

# %% [markdown]
# `refuse_leaks` runs before every probe and stops at either leak. With `leaks: remove` a profile has
# distilled patients taken out of the benchmark first, which the profile for real data does; with
# `leaks: waive` the finding is printed and the number is not to be trusted.

# %% tags=["remove-input"]
from pacx.data.splits import refuse_leaks
from pacx.figures.source import show_source

show_source(refuse_leaks)

# %% [markdown]
# All data sets of this run in one table:

# %% tags=["hide-input"]
distilled = read_patients(run.data_root, "train")
audit = pd.DataFrame(
    [
        {
            "dataset": name,
            "patients with several images": int((table.groupby("patient").size() > 1).sum()),
            "patients in two splits": int((table.groupby("patient")["split"].nunique() > 1).sum()),
            "also in the distillation": "–" if name == "symile-mimic"
            else len(set(table["patient"]) & set(distilled["patient"])),
        }
        for name, table in tables.items()
    ]
)  # fmt: skip
counts = [column for column in audit if column.startswith("patients")]
display(show(suppress_small(run, audit, *counts), digits=0))

# %% [markdown]
# ## Check it yourself
#
# Each of these can fail. Try it: put `t = tables["chexchonet"]; t.loc[t["patient"].duplicated(),
# "split"] = "test"` above the code of the last table, and run that cell and this one again.

# %%
assert (audit["patients in two splits"] == 0).all(), "a patient is in two splits"
assert not set(tables["symile-mimic"].query("split == 'test'")["patient"]) & set(
    distilled["patient"]
)

# The audit is not blind: three patients who are planted in MedMod are found.
populations = load_populations(run)
medmod = populations["medmod"]
strangers = distilled.loc[~distilled["patient"].isin(medmod["patient"]), "patient"].unique()[:3]
planted = pd.concat([medmod, medmod[:3].assign(patient=strangers)])
these = "split == 'train' and second == 'medmod' and by == 'subject'"
found = audit_overlaps(populations | {"medmod": planted}).query(these)["shared"].item()
assert found == overlaps.query(these)["shared"].item() + 3

first, again = (render_radiographs(patients, 64, seed=1)[0] for _ in range(2))
assert (first == again).all(), "the same seed must draw the same pictures"

assert coupling.set_index("coupling")["correlation"].abs().idxmax() == 1.0
print("All checks passed.")

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
r = coupling.set_index("coupling")["correlation"]
display(
    Markdown(
        f"- This run has {cohort['images'].sum():,} X-rays of {cohort['patients'].sum():,} patients in "
        f"{len(cohort)} data sets; {int(distilled['patient'].nunique()):,} patients have all three "
        "modalities and train the distillation.\n"
        f"- An average admission has results of {observed.mean():.0%} of the {len(LABS)} blood tests.\n"
        f"- The correlation of the heart's relative width with the state dilation is {r[1.0]:.2f} at "
        f"coupling 1 and {r[0.0]:.2f} at coupling 0. Its square says that the state explains "
        f"{r[1.0] ** 2:.0%} and {r[0.0] ** 2:.0%} of the variance of that width.\n"
        f"- {int(audit['patients in two splits'].sum())} patients are in two splits of one data set."
    )
)

# %% [markdown]
# ## Exercises
#
# 1. Along which paths does hypertension reach fluid overload, and with which total weight? Is that the
#    covariance of the two?
#
# ```{dropdown} Answer
# Through hypertrophy and dilation; through loss of kidney function; and through hypertrophy, dilation
# and atrial load. Multiply the weights along each path and add up the three products.
# `pacx.phantom.state.state_covariance()` gives more, because age raises both: they go together more
# than one causes the other.
# ```
#
# 2. Two tests of one panel are missing together. Would it help a network more to know *that* a
#    value is missing, or to get a good guess of it?
#
# ```{dropdown} Answer
# Both carry something different. A guess from the other tests says what the value would be. That it
# is missing says how sick the doctors thought the patient was. [Chapter 03](03_lab_autoencoder)
# measures what the pattern of ordered tests alone can tell.
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
# ## References
#
# Pairing: {cite:p}`saporta2024symile`. MIMIC:
# {cite:p}`johnson2023mimiciv,johnson2019mimiccxrjpg,gow2023mimicivecg`. X-rays of stage 1:
# {cite:p}`irvin2019chexpert`. Benchmarks: those of [chapter 06](06_clinical_transfer). The paper:
# {cite:p}`liu2026pacx`.
