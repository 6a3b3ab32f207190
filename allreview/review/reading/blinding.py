"""What a reader must not see of a cell, so that the answer is the reader's own."""

from collections.abc import Iterable

HIDEABLE = {
    "prediction": "the model's opinion",
    "source_label": "the source label",
    "subject": "the subject",
    "others": "other reviewers' answers",
}
"""What a worklist can hide, by name, in words."""

BLIND_TEST = frozenset({"prediction", "source_label", "others"})
"""What is always hidden of test cells: the test figures depend on their labels."""


def hidden_of(hidden: Iterable[str], part: str | None, *, adjudicates: bool = False) -> frozenset[str]:
    """What is hidden of a cell of this part in a worklist that hides `hidden`.

    Who adjudicates sees the answers between which to decide, of test cells too.
    """
    found = frozenset(hidden)
    if part != "test":
        return found
    return found | (BLIND_TEST - {"others"} if adjudicates else BLIND_TEST)


def shows_reason(hidden: Iterable[str]) -> bool:
    """Whether the reason why a cell is in the queue may be shown: it tells of predictions, labels and answers."""
    return not {"prediction", "source_label", "others"} & set(hidden)
