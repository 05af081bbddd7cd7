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
# # The ECG teacher
#
# A network that has learned to diagnose ECGs is frozen. Its embedding of a ten-second ECG is what the X-ray
# encoder will be taught.
#
# Reading time: about 16 minutes.

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

run = open_chapter(profile, runs, needs="ecg")
banner(run)

# %% [markdown]
# ## What you will learn
#
# - What twelve leads are, and the two laws that tie six of them together.
# - What an ECG shows of a large heart, and what it does not.
# - How wrongly named leads are found, and why leads are ordered by name, never by position.
# - How one diagnosis comes about, from the filters to the logit.
# - How well the teacher diagnoses ECGs that it has not seen.
#
# ## Before you start
#
# | You should know | Why | Where |
# |---|---|---|
# | {term}`ECG`, {term}`Lead`, {term}`QRS` | what is read here | [glossary](../book/glossary) |
# | where the ECGs come from | they share causes with the X-rays | [chapter 01](01_cohort) |
# | {term}`AUROC`, {term}`Bootstrap` | how the teacher is judged | [glossary](../book/glossary) |
# | {term}`Frozen`, {term}`Embedding` | how the teacher is used | [glossary](../book/glossary) |

# %% [markdown]
# ## Twelve leads from nine electrodes
#
# A lead is a voltage between electrodes, in millivolts (mV). Three electrodes on the limbs give six
# leads, so only two of the six are free. (A tenth electrode, on the right leg, is the ground.)
# Einthoven's law and Goldberger's definitions say
#
# $$ \mathrm{II} = \mathrm{I} + \mathrm{III}, \qquad
# \mathrm{aVR} = -\tfrac{1}{2}(\mathrm{I} + \mathrm{II}), \quad
# \mathrm{aVL} = \mathrm{I} - \tfrac{1}{2}\mathrm{II}, \quad
# \mathrm{aVF} = \mathrm{II} - \tfrac{1}{2}\mathrm{I} . $$
#
# The chest leads V1 to V6 look from the front and the left and are free. In each beat comes a small
# bump (P, the atria are activated), a spike ({term}`QRS`, the ventricles are activated, and then
# contract) and a broad hump (T, the ventricles recover). Here is the first record of the ECG archive:

# %% mystnb={"image": {"alt": "Twelve-lead ECG of a phantom patient on standard paper, 25 millimetres a second and 10 millimetres a millivolt."}}
from pacx.book.privacy import declare
from pacx.data.ecg import read_ecg
from pacx.figures.ecg import ecg_paper

headers = sorted((run.data_root / "ecg-archive").rglob("*.hea"))
record = read_ecg(headers[0])
about = f"Record {headers[0].stem}, {record.hz:g} Hz"
figure = ecg_paper(record.signal, record.leads, record.hz, about)
_ = declare(run, figure, "ecg-archive")

# %% [markdown]
# Einthoven's law holds on this record: the sum of leads I and III lies on lead II, which is dashed. The two
# agree to within a hundredth of a millivolt, a tenth of a small square.

# %% mystnb={"image": {"alt": "Three traces in millivolts over three seconds: lead I, lead III, and their sum with lead II dashed over it. The two lines of the last row coincide."}}
import numpy as np

from pacx.figures.ecg import traces

lead = dict(zip(record.leads, record.signal, strict=True))
total = lead["I"] + lead["III"]
assert np.abs(total - lead["II"]).max() < 0.01, "leads are misnamed"

rows = {"lead I": lead["I"], "lead III": lead["III"]}
rows["I + III, and II"] = np.stack([total, lead["II"]])
_ = declare(run, traces(rows, record.hz), "ecg-archive")

# %% [markdown]
# ### What an ECG shows of a large heart
#
# A heart can be large in two ways. In {term}`hypertrophy` the wall of the left ventricle is thick. More
# muscle makes more voltage: the QRS grows tall in the leads that look from the left (I, aVL, V5, V6), and
# deep in V1 and V2, which look from the right. The {term}`axis` may turn to the left. A thick wall also
# recovers in another order, so the ST segment (between QRS and T) and the T wave may point away from the
# QRS (*strain*). In {term}`dilation` the cavity is wide. Dilation has no specific sign on the ECG: voltage
# may rise, and the QRS lasts longer where the stretched wall conducts slowly.
#
# An ECG does not measure the heart. Fat, air and fluid between heart and electrodes lower the voltage, slim
# young people have a high one, and many large hearts have an ordinary ECG. The X-ray has another blind
# spot: it shows the outline, which a thick wall hardly changes. So the two records are complementary, and
# an X-ray encoder may learn from the ECG what to look for. None of the diagnoses below is hypertrophy or
# dilation, though: whatever the teacher knows of them is a by-product.

# %% [markdown]
# ## The lead order trap
#
# MIMIC-IV-ECG stores aVF before aVL. ECGFounder was trained with aVL before aVF. Nothing crashes if one
# order is taken for the other: the network just gets two leads mixed up. These are the rows that differ:

# %%
import pandas as pd

from pacx.constants import LEADS_ECGFOUNDER, LEADS_MIMIC
from pacx.figures.tables import show

orders = {"MIMIC-IV-ECG": LEADS_MIMIC, "ECGFounder": LEADS_ECGFOUNDER}
orders = pd.DataFrame({"row": range(1, 13), **orders})
show(orders[orders["MIMIC-IV-ECG"] != orders["ECGFounder"]])

# %% [markdown]
# So the library reorders by name. Because the limb leads determine each other, wrong names among them can
# be found. (Two things are *not* found: chest leads under wrong names, since those are free, and electrodes
# on the wrong limbs, since the six leads are then wrong but still agree with each other.) Below, a record
# in MIMIC's order is given ECGFounder's names:

# %%
import textwrap

from pacx.data.ecg import reorder
from pacx.data.ecg_quality import check_limb_leads
from pacx.errors import PacxError

in_mimic_order = reorder(record.signal, record.leads, LEADS_MIMIC)
check_limb_leads(in_mimic_order, LEADS_MIMIC)  # right names: nothing happens
try:
    check_limb_leads(in_mimic_order, LEADS_ECGFOUNDER)
except PacxError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## Filters
#
# ECGFounder's own preprocessing comes first. A *notch* filter takes out 50 Hz, the European mains hum. A
# *band-pass* keeps 0.67 to 40 Hz: what is slower is mostly breathing, what is faster mostly muscle. (The
# sharpest edges of the QRS are lost too: these filters serve the network, not a cardiologist.) A running
# median of 0.4 s is subtracted, and one *z-score* over all leads of a record brings the mean to 0 and the
# spread to 1. The filters run forwards and backwards, so no wave is delayed. The z-score over *all* leads
# keeps their sizes relative to each other. The notch stays at 50 Hz although mains hum in the USA is at 60
# Hz: published weights were trained with it. At 100 samples a second or fewer there is no notch: a wave
# needs more than two samples a period.
#
# Of the first held-out records, take the one whose lead II drifts most, and filter this lead by hand:


# %%
def drift(ecg):
    """Spread of the medians of whole seconds of lead II, in mV."""
    second, x = int(ecg.hz), ecg.signal[ecg.leads.index("II")]
    whole = x[: len(x) // second * second].reshape(-1, second)
    return np.median(whole, axis=1).std()


drifting = max(map(read_ecg, headers[::10][:50]), key=drift)
hz, at = drifting.hz, drifting.leads.index("II")

# %%
from scipy import ndimage
from scipy import signal as dsp

x = np.nan_to_num(drifting.signal[at])  # lead II, mV
if hz > 100:
    x = dsp.filtfilt(*dsp.iirnotch(50, Q=30, fs=hz), x)
edges = [0.67, min(40, 0.45 * hz)]  # Hz
band = dsp.butter(4, edges, "bandpass", fs=hz, output="sos")
x = dsp.sosfiltfilt(band, x)  # forwards and backwards
window = int(0.4 * hz) + 1 | 1  # odd
x = x - ndimage.median_filter(x, window, mode="constant")

# %% [markdown]
# The library filters all leads at once. (Up to 500 Hz it writes the band-pass as one polynomial, as the
# reference does, and its rounding errors are part of the output: hence the tolerance of a microvolt. In the
# z-score it adds $10^{-8}$ to the spread.)

# %%
from pacx.data.ecg import filter_ecg, preprocess

filtered = filter_ecg(drifting.signal, hz)  # (12, T), mV
np.testing.assert_allclose(x, filtered[at], rtol=0, atol=1e-3)

z = (filtered - filtered.mean()) / filtered.std()  # what the network sees
np.testing.assert_allclose(z, preprocess(drifting.signal, hz), rtol=1e-5)

# %% mystnb={"image": {"alt": "Lead II of one record over six seconds. Above in millivolts: as recorded, on a baseline that wanders, and over it, dashed, after filtering, on a level baseline. Below the filtered trace as the network sees it, in standard deviations."}}
recorded = "lead II as recorded, and dashed after the filters (mV)"
rows = {recorded: np.stack([drifting.signal[at], x])}
rows["as the network sees it (standard deviations)"] = z[at]
figure = traces(rows, hz, seconds=6, y_label="")
_ = declare(run, figure, "ecg-archive")

# %% [markdown]
# Because of the z-score the unit does not matter. Symile-MIMIC stores ECGs stretched to [−1, 1]; after
# these steps they equal ECGs from millivolts.
#
# ## ECGFounder, and the teacher of this run
#
# The paper's teacher is ECGFounder {cite:p}`li2025ecgfounder`, a one-dimensional network of
# {term}`convolutions <Convolution>` (Net1D) trained on the diagnoses of more than ten million real ECGs.
# Its 1,024 features, averaged over time, are the embedding; its 150 diagnoses are not used.
# `pacx.models.ecg_founder` has the same architecture under the same parameter names, and a profile that
# names the weights file (`ecg.weights`) uses it. Such a run trains no teacher, so this chapter is left out.
#
# The phantom profiles name none. Real diagnoses would mean little on simulated ECGs, so a smaller Net1D is
# trained on the diagnoses of a phantom archive, as ECGFounder was on real ones. Its patients are in no
# other data set, and **none of its diagnoses is a phantom task** of later chapters. (MedMod comes near:
# its dysrhythmias and conduction disorders have the same causes as the teacher's diagnoses of rhythm and
# conduction.)

# %%
from pacx.data.datasets.ecg_archive import load_ecg_archive
from pacx.errors import NoDataError
from pacx.training.ecg import load_ecg, train_ecg

if run.profile.ecg.weights is not None:
    raise NoDataError("This profile takes ECGFounder's weights.")
archive = load_ecg_archive(run.data_root, run.cache)
folder = train_ecg(run)
teacher = load_ecg(run)
held_out = np.load(folder / "held_out.npz")  # every tenth record

# %% [markdown]
# Below are the archive's diagnoses (with their codes in the dictionary SNOMED CT) and the size of the
# teacher. Not all weights are trained: the checkpoint's layout has batch norms that are never used.

# %%
from pacx.constants import ECG_DIAGNOSES

shares = pd.DataFrame({"SNOMED CT": ECG_DIAGNOSES.keys()})
shares["diagnosis"] = ECG_DIAGNOSES.values()
shares["share of ECGs"] = archive.diagnoses.mean(0)
styled = shares.style.hide().format({"share of ECGs": "{:.0%}"})
declare(run, styled, "ecg-archive")

# %%
from pacx.models.encoder import trainable_parameters

sizes = {"weights": sum(p.numel() for p in teacher.parameters())}
sizes["trained"] = trainable_parameters(teacher)
sizes["ECGs held out"] = len(held_out["logits"])
sizes["ECGs trained on"] = len(archive.ecg) - sizes["ECGs held out"]
show(pd.DataFrame([sizes])).format("{:,}")

# %% mystnb={"image": {"alt": "Training curve of the ECG teacher: binary cross-entropy against the step."}}
from pacx.figures.curves import training_curves

history = pd.read_csv(folder / "history.csv")
label = "binary cross-entropy, mean of diagnoses"
figure = training_curves({"ecg": history}, y_labels=[label])

# %% [markdown]
# ### One diagnosis by hand
#
# This is the way from the filtered record to one logit, that of *left axis deviation*. The first
# convolution moves filters of 16 samples over all twelve leads at once, two samples a step, with zeros at
# the ends. The stages are blocks of further convolutions, each halving the time axis. What is left is a row
# of features $h_t$ for each of $T'$ moments. A linear layer reads diagnosis $k$ off their mean, which is
# the same as a mean over moments:
#
# $$ \text{logit}_k = w_k \cdot \frac{1}{T'} \sum_t h_t + b_k
# = \frac{1}{T'} \sum_t \left( w_k \cdot h_t + b_k \right) . $$

# %%
import torch
import torch.nn.functional as F

ecg = torch.from_numpy(z).float()[None]  # (1, 12, T)
conv = teacher.first_conv.conv
size, step = conv.kernel_size[0], conv.stride[0]
pad = (-(-ecg.shape[2] // step) - 1) * step + size - ecg.shape[2]
k = list(ECG_DIAGNOSES.values()).index("left axis deviation")
w, b = teacher.dense.weight[k], teacher.dense.bias[k]
with torch.inference_mode():
    h = F.pad(ecg, (pad // 2, pad - pad // 2))
    h = F.silu(F.conv1d(h, conv.weight, conv.bias, step)).transpose(1, 2)
    for stage in teacher.stage_list:
        h = stage(h)  # (1, T', D)
    logit = (h[0] @ w + b).mean()

# %% [markdown]
# The library runs the same network, from millivolts as recorded. (The tolerance allows for the order of
# sums, and for `preprocess`, whose z-score differs from ours in the last digits.)

# %%
ready = torch.from_numpy(preprocess(drifting.signal, hz)).float()[None]
with torch.inference_mode():
    by_library, embedding = teacher(ready)[0, k], teacher.features(ready)
torch.testing.assert_close(logit, by_library, rtol=1e-3, atol=1e-3)
torch.testing.assert_close(h.mean(1), embedding, rtol=1e-3, atol=1e-3)

# %% [markdown]
# ## How well does the teacher diagnose ECGs?
#
# Every tenth record was held out. For each diagnosis, {term}`AUROC` with a 95 % interval over patients; 0.5
# is guessing. *aVL and aVF swapped* is the same network, fed with these two leads mixed up: the cost of
# the trap above. A diagnosis that none or all of the held-out ECGs have has no AUROC and is left out.

# %%
from pacx.evaluation.statistics import bootstrap_weights
from pacx.processes import infer

truth = held_out["diagnoses"]
mixed_up = reorder(archive.ecg[::10], LEADS_MIMIC, LEADS_ECGFOUNDER)
logits = {
    "leads by name": held_out["logits"],
    "aVL and aVF swapped": infer(teacher, teacher, mixed_up),
}
resamples, seed = run.profile.bootstrap, run.profile.seed
weights = bootstrap_weights(np.arange(len(truth)), resamples, seed)

# %%
from functools import partial

from pacx.evaluation.statistics import on_resamples, weighted_auroc


def auroc(feed, k):
    score = partial(weighted_auroc, truth[:, k], logits[feed][:, k])
    return on_resamples(score, weights)


# %% mystnb={"image": {"alt": "Dot plot of the teacher's AUROC on held-out ECGs for each diagnosis with 95 percent intervals, once with leads in the right order and once with aVL and aVF swapped. A dashed line marks guessing at 0.5."}}
from pacx.evaluation.statistics import paired_table
from pacx.figures.results import dots
from pacx.figures.style import COLOURS

parts = []
for k, task in enumerate(ECG_DIAGNOSES.values()):
    if 0 < truth[:, k].mean() < 1:
        score, facts = partial(auroc, k=k), {"task": task, "metric": "AUROC"}
        parts.append(paired_table(logits, "leads by name", score, **facts))
teacher_scores = run.save_results("ecg_teacher", pd.concat(parts))
looks = (COLOURS["green"], COLOURS["purple"])
colours = dict(zip(logits, looks, strict=True))
label = "AUROC on held-out ECGs"
figure = dots(teacher_scores, chance=0.5, x_label=label, colours=colours)

# %% [markdown]
# The table has the mean over the diagnoses, and the difference that the swap makes on the same resampled
# patients. Where the interval of the difference is below zero, the swap costs accuracy. The network raises
# no alarm in either case; `check_limb_leads` does.

# %%
from pacx.evaluation.statistics import macro_auroc


def mean_auroc(feed):
    return on_resamples(partial(macro_auroc, truth, logits[feed]), weights)


price = paired_table(logits, "leads by name", mean_auroc, metric="mean AUROC")
price = price.drop(columns=["metric", "reference", "difference_p"])
shown_as = {"model": "leads", "value": "mean AUROC", "difference_value": "difference"}
show(price.rename(columns=shown_as))

# %% [markdown]
# ## A real ECG
#
# `waveform_ecg.dcm` is a real twelve-lead recording in DICOM format that comes with the package
# `pydicom` as a test file. It is **not paired** with the X-ray of [chapter 02](02_cxr_mae) or with
# anything else here. The loader takes the leads' names from the file's own labels and returns millivolts.

# %% mystnb={"image": {"alt": "A real twelve-lead ECG from pydicom's test files on standard paper, 25 millimetres a second and 10 millimetres a millivolt."}}
from pydicom.data import get_testdata_file

real = read_ecg(get_testdata_file("waveform_ecg.dcm", download=False))
check_limb_leads(real.signal, real.leads)
about = f"pydicom, waveform_ecg.dcm, {real.hz:g} Hz"
figure = ecg_paper(real.signal, real.leads, real.hz, about)
_ = declare(run, figure)

# %% [markdown]
# The recording is resampled to the rate of this run's ECGs, filtered, and diagnosed. In the phantom
# profiles these probabilities are those of a network that has **only ever seen simulated ECGs**. They show
# that the steps from a DICOM file to an answer work. They are no diagnosis.

# %%
from pacx.data.ecg import resample

resampled = resample(real.signal, real.hz, archive.hz)
ready = preprocess(resampled, archive.hz).astype(np.float32)
with torch.inference_mode():
    probability = teacher(torch.from_numpy(ready)[None])[0].sigmoid()
answers = {"diagnosis": ECG_DIAGNOSES.values(), "probability": probability}
show(pd.DataFrame(answers), digits=2)

# %% [markdown]
# ## Check it yourself

# %%
assert np.abs(lead["aVR"] + lead["aVL"] + lead["aVF"]).max() < 0.01
# Neither this nor Einthoven's law notices aVL and aVF changing places:
aVL = lead["I"] - lead["II"] / 2
assert np.abs(lead["aVL"] - aVL).max() < 0.01, "aVL is misnamed"

in_microvolts = preprocess(1000 * drifting.signal, hz)
assert np.allclose(in_microvolts, z, atol=1e-5), "the unit must not matter"

again = infer(teacher, teacher, archive.ecg[::10])
assert np.allclose(again, held_out["logits"], atol=1e-3), "another teacher"

# Exercise 3: one z-score keeps the leads' relative sizes, twelve do not.
spread = filtered.std(1, keepdims=True)
each = (filtered - filtered.mean(1, keepdims=True)) / np.maximum(spread, 1e-6)
np.testing.assert_allclose(z.std(1) * filtered.std(), filtered.std(1))
assert np.ptp(each.std(1)[filtered.std(1) > 1e-6]) < 1e-6
print("All checks passed.")

# %% [markdown]
# ## Phantoms only
#
# A phantom ECG gets its diagnoses from its own traits ([chapter 01](01_cohort)), by the limits in the
# table. Some of them are laxer than a cardiologist's, so that each diagnosis has enough cases. The figure
# shows one phantom patient whose states are all average, and, dashed, the same patient with the same noise
# and with hypertrophy two standard deviations above average. For real data this section is empty.

# %% mystnb={"image": {"alt": "Leads aVL, V1 and V5 over three seconds of one phantom patient, with average states and, dashed, with hypertrophy. With hypertrophy the QRS is taller in aVL and V5 and deeper in V1, and the T wave is flatter."}}
from IPython.display import display

from pacx.phantom.ecg import CRITERIA, render_ecgs
from pacx.phantom.state import EQUATIONS, sample_patients

units = {
    "fibrillation": "standard deviations",
    "rate": "beats/min",
    "pr": "s",
    "qrs": "s",
    "axis": "degrees",
    "t": "height / average",
    "voltage": "log(size / average)",
}
if run.is_phantom:
    coded = pd.DataFrame([CRITERIA[code] for code in ECG_DIAGNOSES])
    coded.insert(0, "diagnosis", ECG_DIAGNOSES.values())
    coded.insert(4, "unit", coded["trait"].map(units))
    coded["not in fibrillation"] = coded.pop("sinus").map({True: "yes", False: ""})
    display(show(coded).format("{:g}", "limit"))

    average = sample_patients(1, seed=1).assign(**dict.fromkeys(EQUATIONS, 0.0))
    patients = average, average.assign(hypertrophy=2.0)
    both = np.stack([render_ecgs(one, 500, seed=3)[0] for one in patients])
    leads = ("aVL", "V1", "V5")
    rows = {name: both[:, LEADS_MIMIC.index(name)] for name in leads}
    figure = declare(run, traces(rows, 500))

# %% [markdown]
# ## Summary
#
# The ECG teacher is a convolutional network that reads all twelve leads at once, after filters and one
# z-score, and is frozen from here on. The figure of held-out ECGs says which diagnoses it can tell from
# guessing and which it cannot, and the table below it says what two swapped leads cost on average. Leads
# have to be ordered by name, because the network itself does not notice a swap.
#
# ## Exercises
#
# 1. Which diagnosis should suffer most from the swap, and why?
#
# ```{dropdown} Answer
# Check whether it is the one that is read from the heart's {term}`axis`. aVL looks from the left, aVF from
# below; with left axis deviation the QRS points up in I and aVL, and down in aVF. Rate and rhythm can be
# told from any lead.
# ```
#
# 2. Why can an ECG that was stretched to [−1, 1] not be checked with `check_limb_leads`?
#
# ```{dropdown} Answer
# Stretching subtracts a constant from every lead. The laws are linear and hold for scaled leads,
# but II = I + III is off by that constant. Check recordings in mV, before anything else is done to
# them.
# ```
#
# 3. Z-score each lead of `filtered` on its own, and compare the leads' spreads before and after. What would
#    be lost?
#
# ```{dropdown} Answer
# All leads have spread 1 afterwards, so low voltage, tall QRS waves in the left leads or a turned axis
# would be harder to see. With one z-score the leads keep their sizes relative to each other. *Check it
# yourself* runs this code.
#
#     spread = filtered.std(1, keepdims=True)
#     each = (filtered - filtered.mean(1, keepdims=True)) / spread
#     spread.ravel(), each.std(1), z.std(1)
# ```
#
# ## Next
#
# Both teachers are ready. [Chapter 05](05_distillation) teaches the X-ray encoder with them.
#
# ## References
#
# ECGFounder: {cite:p}`li2025ecgfounder`. Archive layout: {cite:p}`reyna2021will`, on PhysioNet
# {cite:p}`goldberger2000physionet`. MIMIC-IV-ECG: {cite:p}`gow2023mimicivecg`. The paper:
# {cite:p}`liu2026pacx`.
