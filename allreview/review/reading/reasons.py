"""Why a reviewer answered as they did: a short fixed list, so that reasons can be counted, beside the free note."""

from collections.abc import Iterable

REASONS = (
    "Nucleus and chromatin",
    "Nucleoli",
    "Cytoplasm",
    "Size",
    "Staining",
    "Out of focus",
    "Broken or smudged",
    "More than one cell",
)
"""In the order of their keys. Never rename one: decisions carry them as text."""

_BETWEEN = "; "


def joined(reasons: Iterable[str]) -> str | None:
    """Chosen reasons as the one text a decision carries, in the order of the list; None for none.

    >>> joined(["Size", "Nucleoli"])
    'Nucleoli; Size'
    """
    chosen = set(reasons)
    return _BETWEEN.join(reason for reason in REASONS if reason in chosen) or None


def split(text: str | None) -> list[str]:
    """The reasons of the list that a decision's text names; what is not of the list is left out.

    >>> split("Nucleoli; Size")
    ['Nucleoli', 'Size']
    """
    named = (text or "").split(_BETWEEN)
    return [reason for reason in REASONS if reason in named]
