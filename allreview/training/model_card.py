"""A run's model card: what the model is, what it saw, how well it does, and what it must not be used for.

The sections are those of Mitchell et al., Model Cards for Model Reporting, FAT* 2019 (arXiv:1810.03993).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from allreview.cells.naming import class_title
from allreview.evaluation.naming import (
    FIGURE_TITLES,
    IN_COMPANY,
    SHARED_PATIENTS,
    in_company_in_words,
    model_title,
    new_patient_in_words,
    split_in_words,
)
from allreview.evaluation.reports import SubjectRow
from allreview.labels import NOT_CLASSES
from allreview.training.leaving_out import is_cross_fitted
from allreview.training.recipe_words import in_words
from allreview.training.runs import RunRow
from allreview.training.snapshots import SnapshotLine
from allreview.wording import listed, plural
from db.tables import PARTS

NOT_SHARES = {"brier", "ece"}
"""Figures that are told as numbers; all others are shares, told in percent."""


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from. `description` is `model.json`, empty where there is no model; `subjects` are
    the test part's, empty where nothing was evaluated."""

    run: RunRow
    cells: Sequence[SnapshotLine]
    stopped: bool
    description: dict[str, Any] = field(default_factory=dict)
    subjects: Sequence[SubjectRow] = ()


def model_card(facts: CardFacts) -> str:
    """The card as Markdown."""
    sections = (
        _heading(facts),
        _details(facts),
        _intended_use(facts),
        _factors(facts),
        _metrics(facts),
        _evaluation_data(facts),
        _training_data(facts),
        _results(facts),
        _ethics(),
        _caveats(facts),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _heading(facts: CardFacts) -> list[str]:
    lines = [f"# Model card: {model_title(facts.run.recipe)}, run {facts.run.id}"]
    if facts.stopped:
        done = f"after {plural(len(facts.run.epochs), 'epoch')} of {facts.run.recipe.epochs}"
        if not facts.run.epochs:
            done = "before its model was made" if facts.run.members else "before its first epoch was complete"
        kept = "The mean of its members" if facts.run.members else "The model of its best epoch"
        kept = f"{kept} is kept" if facts.description else "It has no model"
        lines += ["", f"**This run was stopped by a person, {done}.** {kept}, and figures may be missing."]
    if facts.run.shares_patients:
        lines += [
            "",
            f"**{SHARED_PATIENTS.capitalize()}.** The test figures below are of patients whose other cells the "
            "model was trained on. They say little of how it does on a new patient, and flatter it.",
        ]
    return lines


def _details(facts: CardFacts) -> list[str]:
    run, description = facts.run, facts.description
    versions = {**description.get("versions", {}), **_versions(run.machine)}
    machine = {key: value for key, value in run.machine.items() if key not in _versions(run.machine)}
    lines = ["## Model details", "", *_bullets(in_words(run.recipe))]
    more = [
        f"Made on {run.created_at:%Y-%m-%d} by allreview{_after(' ', versions.get('allreview'))}"
        + (f", in {_duration(run.seconds)}" if run.seconds else "")
        + ".",
        f"Epoch {run.best_epoch} of {len(run.epochs)} was kept." if run.best_epoch and run.epochs else "",
        f"A retrain of run {run.parent_id} after corrections, on the same split." if run.parent_id else "",
        f"The mean of the probabilities of runs {listed([str(number) for number in run.members])}."
        if run.members
        else "",
        _machine(machine),
        f"Versions: {_pairs(versions)}." if versions else "",
    ]
    hashes = {
        "recipe": run.recipe.hash,
        "snapshot (cells, labels and parts)": run.snapshot_hash,
        "pretrained weights": description.get("weights_sha256"),
        "model.keras": description.get("model_sha256"),
    }
    return [
        *lines,
        *_bullets(more),
        "",
        *_table(("SHA-256 of", ""), [(name, f"`{value}`") for name, value in hashes.items() if value]),
    ]


def _intended_use(facts: CardFacts) -> list[str]:
    classes = listed([class_title(name) for name in facts.run.classes])
    return [
        "## Intended use",
        "",
        f"To sort images of single blood cells into {classes}, for research and to support review: to find cells "
        "whose label deserves a second look, and to compare ways of training.",
        "",
        "**It is not a diagnostic device.** It has not been validated for clinical use, and no decision about a "
        "patient may rest on it.",
    ]


def _factors(facts: CardFacts) -> list[str]:
    subjects = {cell.subject for cell in facts.cells if cell.subject is not None}
    return [
        "## Factors",
        "",
        f"Cells of one subject are alike, so subjects count rather than cells: there are "
        f"{plural(len(subjects), 'subject')} in all. Stain, scanner and brightness differ between subjects and "
        "laboratories, and a model may lean on them. Age, sex, subtype and treatment are not known to it, nor to "
        "these figures.",
    ]


def _metrics(facts: CardFacts) -> list[str]:
    temperature = facts.run.temperature
    averaged = facts.run.recipe.test_time_augmentation != "none"
    divided = "the logarithms of the means over views were" if averaged else "logits were"
    calibrated = (
        f"Probabilities are calibrated: {divided} divided by a temperature of {temperature:.3g}, fitted on "
        "cells that were left out of training (Guo et al. 2017)."
        if temperature is not None and temperature != 1
        else "Its members were calibrated one by one; their mean was not calibrated again."
        if facts.run.members
        else "Probabilities were not calibrated: the fit on validation cells changed nothing, or was not done."
    )
    return [
        "## Metrics",
        "",
        "Figures are on the labels the cells were imported with. Intervals are 95 %, from drawing subjects (not "
        "cells) again and again; a figure has none where there are too few subjects to tell. For two classes, "
        "area under the curve and average precision are those of "
        f"detecting {class_title(_positive(facts.run.classes))}.",
        "",
        calibrated,
    ]


def _evaluation_data(facts: CardFacts) -> list[str]:
    test = [cell for cell in facts.cells if cell.part == "test"]
    trained = {cell.subject for cell in facts.cells if cell.part != "test"} - {None}
    subjects = {cell.subject for cell in test} - {None}
    known = subjects & trained
    if facts.run.shares_patients or known:
        told = (
            f"**{SHARED_PATIENTS.capitalize()}:** {len(known)} of these subjects also have cells among those that "
            "the model was trained or chosen on."
        )
    elif not subjects:
        told = (
            "No cell names its subject, so nothing says whether test cells are of patients it was trained on."
        )
    else:
        told = (
            "No cell of these subjects, nor of subjects tied to them by identical images, was used in training "
            "or to choose the epoch."
        )
    nameless = sum(cell.subject is None for cell in test)
    return [
        "## Evaluation data",
        "",
        f"{plural(len(test), 'test cell')} of {plural(len(subjects), 'subject')} of the dataset "
        f"{facts.run.dataset!r}, {split_in_words(facts.run.recipe)}. {told}"
        + (f" {plural(nameless, 'test cell')} name no subject." if nameless and subjects else ""),
    ]


def _training_data(facts: CardFacts) -> list[str]:
    cells: dict[tuple[str, str], list[SnapshotLine]] = defaultdict(list)
    for cell in facts.cells:
        cells[cell.part, cell.label].append(cell)
    names = [*facts.run.classes, *(name for name in NOT_CLASSES if any(label == name for _, label in cells))]
    rows = [
        (part, *(_counts(cells[part, name]) for name in names), _counts(_of_part(facts.cells, part)))
        for part in PARTS
    ]
    left_out = (
        " Cells that a reviewer called unsure or unusable were left out."
        if len(names) > len(facts.run.classes)
        else ""
    )
    return [
        "## Training data",
        "",
        f"The dataset {facts.run.dataset!r} as it was then, with reviewers' corrections: cells (subjects) by part. "
        f"{_judges(facts)}{left_out} `snapshot.csv` lists every cell.",
        "",
        *_table(("part", *map(class_title, names), "all"), rows),
    ]


def _judges(facts: CardFacts) -> str:
    """Which cells chose the epoch and the temperature."""
    recipe = facts.run.recipe
    if not is_cross_fitted(recipe, facts.cells):
        return "Validation cells chose the epoch and the temperature."
    return (
        f"Training and validation cells were dealt out among {recipe.n_heads} heads, whole subjects together; each "
        "head left out its part, and these parts chose the epoch and the temperature. What the run says of a training "
        "or validation cell is said by the head that left it out."
    )


def _results(facts: CardFacts) -> list[str]:
    parts = [part for part in ("test", "validation") if facts.run.metrics.get(part)]
    lines = ["## Quantitative analyses", ""]
    if not parts:
        return [*lines, "Nothing was evaluated."]
    scores = {part: facts.run.metrics[part] for part in parts}
    header = ("figure", *(f"{part} ({plural(scores[part].get('n', 0), 'cell')})" for part in parts))
    rows = [
        (title, *(_figure(scores[part], name) for part in parts))
        for name, title in FIGURE_TITLES.items()
        if any(scores[part].get(name) is not None for part in parts)
    ]
    return [
        *lines,
        *_table(header, rows),
        *_on_a_new_patient(facts, scores),
        *_by_class(scores[parts[0]], parts[0]),
        *_by_subject(facts.subjects, class_title(_positive(facts.run.classes))),
        *_calibration(scores[parts[0]]),
        *_on_current_labels(scores[parts[0]]),
        *_in_company(scores),
    ]


def _on_a_new_patient(facts: CardFacts, scores: dict[str, dict[str, Any]]) -> list[str]:
    if "new_patient" not in scores.get("test", {}):
        return []
    return [
        "",
        new_patient_in_words(scores["test"]["new_patient"], shares_patients=facts.run.shares_patients),
    ]


def _in_company(scores: dict[str, dict[str, Any]]) -> list[str]:
    together = scores.get("test", {}).get("in_company")
    return (
        ["", "### Cells read in their company", "", IN_COMPANY, "", in_company_in_words(together)]
        if together
        else []
    )


def _by_class(scores: dict[str, Any], part: str) -> list[str]:
    per_class = scores.get("per_class") or {}
    rows = [
        (
            class_title(name),
            found.get("support", 0),
            *(_share(found.get(key)) for key in ("precision", "recall", "f1")),
        )
        for name, found in per_class.items()
    ]
    return [
        "",
        f"By class, on {part} cells:",
        "",
        *_table(("class", "cells", "precision", "recall", "F1"), rows),
    ]


def _by_subject(subjects: Sequence[SubjectRow], positive: str) -> list[str]:
    if not subjects:
        return []
    rows = [
        (
            row.subject,
            class_title(row.label),
            row.cells,
            f"{_share(row.accuracy)}{_interval(row.accuracy_interval)}",
            f"{_share(row.share_positive)}{_interval(row.share_positive_interval)}",
        )
        for row in subjects
    ]
    return [
        "",
        "By subject, on test cells (intervals are Wilson's):",
        "",
        *_table(("subject", "label", "cells", "accuracy", f"called {positive}"), rows),
    ]


def _calibration(scores: dict[str, Any]) -> list[str]:
    before = scores.get("uncalibrated") or {}
    told = [
        f"{FIGURE_TITLES[name].lower()} {before[name]:.3f} before, {scores[name]:.3f} after"
        for name in ("ece", "brier")
        if before.get(name) is not None and scores.get(name) is not None
    ]
    return ["", f"Calibration: {'; '.join(told)}."] if told else []


def _on_current_labels(scores: dict[str, Any]) -> list[str]:
    current = scores.get("current") or {}
    same = all(current.get(name) == scores.get(name) for name in ("n", "accuracy"))
    if same or current.get("accuracy") is None:
        return []
    return [
        "",
        f"On the labels as reviewers corrected them, accuracy is {_figure(current, 'accuracy')} on "
        f"{plural(current.get('n', 0), 'cell')}.",
    ]


def _ethics() -> list[str]:
    return [
        "## Ethical considerations",
        "",
        "Such cells come from patients, many of them children. A normal cell called a blast, or a blast called "
        "normal, would harm if somebody acted on it. The model states a probability for every image, also for "
        "images that show no cell at all.",
    ]


def _caveats(facts: CardFacts) -> list[str]:
    classes = listed([class_title(name) for name in facts.run.classes])
    return [
        "## Caveats and recommendations",
        "",
        *_bullets(
            [
                f"It knows {classes}, and calls every cell one of these, whatever it is.",
                "It was trained and tested on one dataset. Another stain, scanner, magnification or way of cutting "
                "cells out may change what it says; test it there on labelled cells first.",
                "Where labels come from the patient's diagnosis and not from reading each cell, as in C-NMC 2019, "
                "some labels are wrong for their cell, and no figure here can tell.",
                "Intervals tell how figures vary with the subjects that were drawn, not what another laboratory or "
                "another training seed would bring.",
                "Heat maps of a model with global max pooling show few spots, which may lie outside the cell. They "
                "are a hint to what the model used, not a proof.",
            ]
        ),
    ]


def _positive(classes: Sequence[str]) -> str:
    from allreview.evaluation.metrics import positive_class

    return positive_class(classes)


def _of_part(cells: Iterable[SnapshotLine], part: str) -> list[SnapshotLine]:
    return [cell for cell in cells if cell.part == part]


def _counts(cells: Sequence[SnapshotLine]) -> str:
    subjects = {cell.subject for cell in cells} - {None}
    return f"{len(cells):,} ({len(subjects):,})" if cells else "–"


def _figure(scores: dict[str, Any], name: str) -> str:
    value, interval = scores.get(name), (scores.get("intervals") or {}).get(name)
    if value is None:
        return "–"
    if name in NOT_SHARES:
        return f"{value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")
    return f"{_share(value)}{_interval(interval)}"


def _share(value: float | None) -> str:
    if value is None:
        return "–"
    return ">99.9 %" if 0.9995 <= value < 1 else f"{100 * value:.1f} %"


def _interval(interval: Sequence[float] | None) -> str:
    return f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else ""


def _versions(machine: dict[str, Any]) -> dict[str, Any]:
    return {key: machine[key] for key in ("tensorflow", "keras", "numpy") if machine.get(key)}


def _machine(machine: dict[str, Any]) -> str:
    return f"Computed on: {_pairs(machine)}." if machine else ""


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _after(before: str, text: str | None) -> str:
    return f"{before}{text}" if text else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _bullets(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines if line]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    def line(values: Iterable[object]) -> str:
        return "| " + " | ".join(" ".join(str(value).split()).replace("|", "\\|") for value in values) + " |"

    return [line(header), "|" + "---|" * len(header), *(line(row) for row in rows)]
