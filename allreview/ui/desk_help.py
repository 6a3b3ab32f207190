"""Every key of the desk, said once: the sheet behind `?` and the keys on the buttons come from here."""

from collections.abc import Sequence

from allreview.cells.naming import class_title
from allreview.labels import UNSURE, UNUSABLE
from allreview.review.reading.reasons import REASONS
from allreview.review.saliency.overlays import METHODS

Sheet = list[tuple[str, list[tuple[list[str], str]]]]
"""Sections of (title, lines), a line being (keys, what they do)."""

UNSURE_KEY, UNUSABLE_KEY, SKIP_KEY, UNDO_KEY, REDO_KEY = "U", "X", "S", "Z", "Y"
THEIRS_KEY, MINE_KEY = "T", "A"
METHOD_KEYS = "DFGH"


def answer_keys(classes: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """(label, title, key) of every answer; a tenth class and later ones have no key."""
    found: list[tuple[str, str, str | None]] = [
        (name, class_title(name), str(number) if number <= 9 else None)
        for number, name in enumerate(classes, start=1)
    ]
    return [*found, (UNSURE, "Unsure", UNSURE_KEY), (UNUSABLE, "Unusable", UNUSABLE_KEY)]


def sheet(classes: Sequence[str]) -> Sheet:
    """All keys, for people."""
    answers = [([key], title) for _, title, key in answer_keys(classes) if key]
    reasons = [(["Shift", str(number)], reason) for number, reason in enumerate(REASONS, start=1)]
    methods = [([key], title) for key, title in zip(METHOD_KEYS, METHODS.values(), strict=False)]
    return [
        (
            "Answer",
            [
                *answers,
                ([SKIP_KEY], "Skip, and come back later"),
                ([UNDO_KEY], "Undo the last answer or skip"),
                ([REDO_KEY], "Redo; also Shift + Z"),
                (["?"], "This sheet"),
            ],
        ),
        (
            "When somebody else was faster",
            [([THEIRS_KEY], "Keep their answer"), ([MINE_KEY], "Record yours as well")],
        ),
        ("Note", [(["N"], "Write a note"), (["Enter"], "Keep the note and go back to the keys")]),
        ("Reason", reasons),
        (
            "View",
            [
                (["+", "−"], "Larger, smaller; also the wheel"),
                (["←", "→", "↑", "↓"], "Move; also by dragging"),
                (["B"], "Brighter; with Shift darker"),
                (["K"], "More contrast; with Shift less"),
                (["0"], "As it was; also a double click"),
            ],
        ),
        (
            "Saliency",
            [
                *methods,
                (["V"], "Heat on or off"),
                (["O"], "Beside the cell or over it"),
                ([".", ","], "More opaque, less"),
            ],
        ),
    ]
