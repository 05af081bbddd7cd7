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
# A network that has learned to diagnose ECGs is frozen, and its view of ten seconds of heartbeat
# becomes what the X-ray encoder is taught.

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

run = open_chapter(profile, runs, needs="ecg")
banner(run)

# %% [markdown]
# ## What you will learn
#
# - What twelve leads are, and the two laws that tie six of them together.
# - How a lead under a wrong name is found, and why leads are ordered by name, never by position.
# - What the filters in front of the network remove.
# - How well the teacher diagnoses ECGs that it has not seen.
# - What it says of a real recording.
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

# %%
from pacx.data.ecg import read_ecg

headers = sorted((run.data_root / "ecg-archive").rglob("*.hea"))
record = read_ecg(headers[0])

# %% mystnb={"image": {"alt": "Twelve-lead ECG of a phantom patient on standard paper, 25 millimetres a second and 10 millimetres a millivolt."}} tags=["hide-input"]
from pacx.book.privacy import show_or_withhold
from pacx.figures.ecg import ecg_paper

about = f"Record {headers[0].stem}, {record.hz:g} Hz"
figure = ecg_paper(record.signal, record.leads, record.hz, about)
show_or_withhold(run, figure, "04_record", "ecg-archive")

# %% [markdown]
# And Einthoven's law on it: the sum of leads I and III lies on lead II, which is dashed.

# %% mystnb={"image": {"alt": "Three traces in millivolts over three seconds: lead I, lead III, and their sum with lead II dashed over it. The two lines of the last row coincide."}} tags=["hide-input"]
import numpy as np
from IPython.display import Markdown, display

from pacx.figures.ecg import traces

lead = dict(zip(record.leads, record.signal, strict=True))
total = lead["I"] + lead["III"]
rows = {
    "lead I": lead["I"],
    "lead III": lead["III"],
    "I + III, and II": np.stack([total, lead["II"]]),
}
figure = traces(rows, record.hz)
show_or_withhold(run, figure, "04_leads", "ecg-archive")
deviation = 1000 * np.abs(total - lead["II"]).max()
display(Markdown(f"The largest deviation of I + III from II is {deviation:.1f} µV."))

# %% [markdown]
# ## The lead order trap
#
# MIMIC-IV-ECG stores aVF before aVL. ECGFounder was trained with aVL before aVF. Nothing crashes if
# you feed one to the other: the network just gets two leads mixed up.

# %% tags=["hide-input"]
import pandas as pd

from pacx.constants import LEADS_ECGFOUNDER, LEADS_MIMIC

orders = pd.DataFrame(
    {"row": range(1, 13), "MIMIC-IV-ECG": LEADS_MIMIC, "ECGFounder": LEADS_ECGFOUNDER}
)
different = orders["MIMIC-IV-ECG"] != orders["ECGFounder"]
display(
    orders.style.hide(axis="index").apply(
        lambda row: ["font-weight: bold" if different[row.name] else ""] * 3, axis=1
    )
)

# %% [markdown]
# So the library reorders by name. And because the limb leads determine each other, wrong names among
# them can be found. (Two things are *not* found: chest leads under wrong names, since those are free,
# and electrodes on the wrong limbs, since the six leads are then wrong but still agree with each other.)
# Below, a record in MIMIC's order is given ECGFounder's names:

# %%
from pacx.data.ecg import check_limb_leads, reorder
from pacx.errors import PacxError

in_mimic_order = reorder(record.signal, record.leads, LEADS_MIMIC)
check_limb_leads(in_mimic_order, LEADS_MIMIC)  # right names: nothing happens
try:
    check_limb_leads(in_mimic_order, LEADS_ECGFOUNDER)
except PacxError as error:
    display(Markdown(f"> {error}"))

# %% [markdown]
# ## Filters
#
# ECGFounder's own preprocessing comes first. A *notch* takes out 50 Hz, the European mains hum. A
# *band-pass* keeps 0.67 to 40 Hz: slower is mostly breathing, faster mostly muscle. (The sharpest edges
# of the QRS go too. These filters serve the network, not a reader.) A running median of 0.4 s
# is subtracted, and one *z-score* over all leads of a record brings the mean to 0 and the spread
# to 1. The filters run forwards and backwards, so no wave is delayed. The z-score over *all* leads
# keeps their sizes relative to each other. The notch stays at 50 Hz although mains hum in the USA
# is at 60 Hz: published weights were trained with it. At low sampling rates there is no notch: a wave
# needs more than two samples a period.

# %% tags=["remove-input"]
from pacx.data.ecg import filter_ecg
from pacx.figures.source import show_source

show_source(filter_ecg)

# %% [markdown]
# Below is, of the archive's first records, the one whose lead II drifts most.

# %%
from pacx.data.ecg import preprocess


def drift(ecg):
    """Spread of the medians of whole seconds of lead II, in mV."""
    second = int(ecg.hz)
    signal = ecg.signal[ecg.leads.index("II")]
    return np.median(signal[: len(signal) // second * second].reshape(-1, second), axis=1).std()


drifting = max((read_ecg(header) for header in headers[:50]), key=drift)
filtered = filter_ecg(drifting.signal, drifting.hz)
seen = preprocess(drifting.signal, drifting.hz)

# %% mystnb={"image": {"alt": "Lead II of one record over six seconds. Above in millivolts: as recorded, on a baseline that wanders, and over it, dashed, after filtering, on a level baseline. Below the filtered trace as the network sees it, in standard deviations."}} tags=["hide-input"]
at = drifting.leads.index("II")
rows = {
    "lead II as recorded, and dashed after the filters (mV)": np.stack(
        [drifting.signal[at], filtered[at]]
    ),
    "as the network sees it (standard deviations)": seen[at],
}
figure = traces(rows, drifting.hz, seconds=6, y_label="")
show_or_withhold(run, figure, "04_filtered", "ecg-archive")
notch = "a notch" if drifting.hz > 100 else "no notch"
display(Markdown(f"These ECGs have {drifting.hz:g} samples a second, so there is {notch}."))

# %% [markdown]
# Because of the z-score the unit does not matter. Symile-MIMIC stores ECGs stretched to [−1, 1];
# after this step they are the same as from millivolts.
#
# ## ECGFounder, and the teacher of this run
#
# The paper's teacher is ECGFounder {cite:p}`li2025ecgfounder`, a one-dimensional network of
# {term}`convolutions <Convolution>` (Net1D) trained on the diagnoses of more than ten million real ECGs.
# Its 1,024 features, averaged over time, are the embedding; its 150 diagnoses are not used.
# `pacx.models.ecg_founder` has the same architecture under the same parameter names, and a profile that
# names the weights file (`ecg.weights`) uses it.
#
# The phantom profiles name none. Real diagnoses would mean little on drawn ECGs, so a smaller Net1D is
# trained on the diagnoses of a phantom archive, as ECGFounder was on real ones. Its patients are in no
# other data set, and **none of its diagnoses is a phantom task** of later chapters. (MedMod comes near:
# its dysrhythmias and conduction disorders have the same causes as the teacher's diagnoses of rhythm and
# conduction.)

# %%
from pacx.data.datasets.ecg_archive import load_ecg_archive
from pacx.training.ecg import load_ecg, train_ecg

archive = load_ecg_archive(run.data_root, run.cache)
folder = train_ecg(run)
teacher = load_ecg(run)

# %% [markdown]
# SNOMED CT is the dictionary whose codes the archive's files use. A phantom ECG is coded by its own traits
# ([chapter 01](01_cohort)): `rate` in beats a minute, `pr` and `qrs` in seconds, `axis` in degrees, the
# others on scales of the phantom. Some of the phantom's cut-offs are laxer than a cardiologist's, so that
# each diagnosis has enough cases.

# %% tags=["hide-input"]
from pacx.constants import ECG_DIAGNOSES
from pacx.phantom.ecg import CRITERIA

shares = pd.DataFrame(
    {
        "SNOMED CT": ECG_DIAGNOSES.keys(),
        "diagnosis": ECG_DIAGNOSES.values(),
        "share of ECGs": archive.diagnoses.mean(0),
    }
)
if run.is_phantom:
    shares["coded where"] = [
        f"{rule.trait} {rule.side} {rule.limit:g}" + ", no fibrillation" * rule.sinus
        for rule in (CRITERIA[code] for code in ECG_DIAGNOSES)
    ]
display(shares.style.hide(axis="index").format({"share of ECGs": "{:.0%}"}))

# %% mystnb={"image": {"alt": "Training curve of the ECG teacher: binary cross-entropy against the step."}} tags=["hide-input"]
from pacx.figures.curves import training_curves

history = pd.read_csv(folder / "history.csv")
figure = training_curves({"ecg": history}, y_labels=["binary cross-entropy, mean of diagnoses"])

# %% [markdown]
# ## Does the teacher know ECGs?
#
# Every tenth record was held out. For each diagnosis, {term}`AUROC` with a 95 % interval over
# patients; 0.5 is guessing. *aVL and aVF swapped* is the same network, fed with these two leads mixed up:
# the price of the trap above.

# %%
import torch
from safetensors.torch import load_model

from pacx.training.ecg import new_teacher

held_out = np.load(folder / "held_out.npz")
own = new_teacher(run)  # this run's teacher, also where the profile names ECGFounder's weights
load_model(own, str(folder / "model.safetensors"))
swapped = reorder(archive.ecg[::10], LEADS_MIMIC, LEADS_ECGFOUNDER)  # names that are not true
with torch.inference_mode():
    logits = {
        "leads by name": held_out["logits"],
        "aVL and aVF swapped": own.eval()(torch.from_numpy(np.ascontiguousarray(swapped))).numpy(),
    }

# %% mystnb={"image": {"alt": "Dot plot of the teacher's AUROC on held-out ECGs for each diagnosis with 95 percent intervals, once with leads in the right order and once with aVL and aVF swapped. A dashed line marks guessing at 0.5."}} tags=["hide-input"]
from pacx.evaluation.statistics import bootstrap_weights, interval, macro_auroc, weighted_auroc
from pacx.figures.results import dots
from pacx.figures.style import COLOURS

weights = bootstrap_weights(np.arange(len(swapped)), run.profile.bootstrap, run.profile.seed)
once = np.ones((1, len(swapped)))
rows, left_out = [], []
for k, diagnosis in enumerate(ECG_DIAGNOSES.values()):
    truth = held_out["diagnoses"][:, k]
    if truth.min() == truth.max():
        left_out.append(diagnosis)
        continue
    for feed, scores in logits.items():
        estimate = interval(
            weighted_auroc(truth, scores[:, k], once)[0],
            weighted_auroc(truth, scores[:, k], weights),
        )
        rows.append({"task": diagnosis, "model": feed, "metric": "AUROC", **estimate._asdict()})
teacher_scores = run.save_results("ecg_teacher", pd.DataFrame(rows))
figure = dots(
    teacher_scores, chance=0.5, x_label="AUROC on held-out ECGs",
    colours={"leads by name": COLOURS["green"], "aVL and aVF swapped": COLOURS["purple"]},
)  # fmt: skip
if left_out:
    why = "Left out, because no held-out ECG has it (or every one)"
    display(Markdown(f"{why}: {', '.join(left_out)}."))

# %% [markdown]
# ## A real ECG
#
# `waveform_ecg.dcm` is a real twelve-lead recording in DICOM format that comes with the package
# `pydicom` as a test file. It is **not paired** with the X-ray of [chapter 02](02_cxr_mae) or with
# anything else here. The reader names the leads from the file's own labels and returns millivolts. The
# recording has more samples a second than this run's ECGs, so it is resampled first.

# %% mystnb={"image": {"alt": "A real twelve-lead ECG from pydicom's test files on standard paper, 25 millimetres a second and 10 millimetres a millivolt."}} tags=["hide-input"]
from pydicom.data import get_testdata_file

from pacx.data.ecg import resample

real = read_ecg(get_testdata_file("waveform_ecg.dcm", download=False))
check_limb_leads(real.signal, real.leads)
figure = ecg_paper(real.signal, real.leads, real.hz, f"pydicom, waveform_ecg.dcm, {real.hz:g} Hz")

# %% tags=["hide-input"]
slower = resample(real.signal, real.hz, archive.hz)
ready = torch.from_numpy(preprocess(slower, archive.hz).astype(np.float32))[None]
with torch.inference_mode():
    embedding = teacher.features(ready)[0]
    probability = own(ready)[0].sigmoid().numpy()
display(
    Markdown(
        f"{real.signal.shape[1]:,} samples at {real.hz:g} Hz → {slower.shape[1]:,} at {archive.hz:g} Hz → "
        f"embedding of {len(embedding):,} numbers."
    )
)
verdicts = pd.DataFrame({"diagnosis": ECG_DIAGNOSES.values(), "probability": probability})
display(verdicts.style.hide(axis="index").format({"probability": "{:.2f}"}))

# %% [markdown]
# In the phantom profiles these probabilities are those of a network that has **only ever seen drawn
# ECGs**. They show that the way from a DICOM file to an answer works. They are no diagnosis.
#
# ## Check it yourself

# %%
assert np.abs(total - lead["II"]).max() < 0.01, "Einthoven's law fails: leads are misnamed"
assert np.abs(lead["aVR"] + lead["aVL"] + lead["aVF"]).max() < 0.01
# Neither law notices aVL and aVF changing places. This does:
assert np.abs(lead["aVL"] - (lead["I"] - lead["II"] / 2)).max() < 0.01, "aVL is misnamed"

z = preprocess(record.signal, record.hz)
assert abs(z.mean()) < 1e-6
assert abs(z.std() - 1) < 1e-6
assert np.allclose(preprocess(1000 * record.signal, record.hz), z, atol=1e-6), (
    "the unit must not matter"
)

with torch.inference_mode():
    again = own(torch.from_numpy(archive.ecg[::10].copy())).numpy()
assert np.allclose(again, held_out["logits"], atol=1e-3), "the saved teacher is not the trained one"
print("All checks passed.")

# %% [markdown]
# ## Summary

# %% tags=["hide-input"]
from pacx.evaluation.statistics import verdict
from pacx.models.encoder import trainable_parameters

by_feed = teacher_scores.groupby("model")["value"]
right = teacher_scores[teacher_scores["model"] == "leads by name"].sort_values("value")
worst, best = right.iloc[0], right.iloc[-1]
above = int((right["low"] > 0.5).sum())
named, mixed = (macro_auroc(held_out["diagnoses"], scores, weights) for scores in logits.values())
price = interval(
    by_feed.mean()["aVL and aVF swapped"] - by_feed.mean()["leads by name"], mixed - named
)
display(
    Markdown(
        f"- The teacher of this run has {sum(p.numel() for p in own.parameters()):,} weights "
        f"({trainable_parameters(own):,} of them trained) and saw {len(archive.ecg) - len(swapped):,} ECGs.\n"
        f"- On {len(swapped)} held-out ECGs its mean AUROC is {by_feed.mean()['leads by name']:.3f}; for "
        f"{above} of {len(right)} diagnoses the 95 % interval lies above guessing.\n"
        f"- Best is {best['task']}, {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}]; worst is "
        f"{worst['task']}, {worst['value']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}].\n"
        f"- With aVL and aVF swapped the mean AUROC is {by_feed.mean()['aVL and aVF swapped']:.3f}. The "
        f"paired difference, {price}, is {verdict(price)}. The network does not notice; "
        "`check_limb_leads` does."
    )
)

# %% [markdown]
# ## Exercises
#
# 1. The swap changes some diagnoses more than others. Which one should suffer most, and why?
#
# ```{dropdown} Answer
# Look whether it is the one that is read from the heart's {term}`axis`. aVL looks from the left, aVF from
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
# 3. What would happen if each lead were z-scored on its own?
#
# ```{dropdown} Answer
# Every lead would have the same size, and low voltage or a turned axis could no longer be seen.
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
