"""How the features that a run lacks are shared out among workers. Without Keras.

A shard is all that one backbone lacks of the cells of a snapshot from one SHA-256 to another, in all their views, so
that a file is read once. It names no cells: whoever takes it asks the cache what is missing of them by then. So it is
as short for a million cells as for a hundred, and it may be computed twice, or by two workers at once.
"""

from collections.abc import Mapping
from typing import NamedTuple

from allreview.recipe import BackboneName

LEAST = 256
"""Images in a shard, at least: a few seconds of work on one core, next to which handing it out takes no time."""
MOST = 200
"""Shards of a run, about."""


class Shard(NamedTuple):
    """Part of what a run lacks: the cells from `first` to `last`, two SHA-256. `engine` and `precision` say what
    has to compute them, so that the features are found where they were looked for."""

    backbone: BackboneName
    engine: str
    precision: str
    first: str
    last: str


def plan(missing: Mapping[tuple[BackboneName, str, str], Mapping[str, int]]) -> list[Shard]:
    """Shards that together cover what is missing, none of them what another does.

    `missing` says of each backbone, and what computes it, in how many views each cell is missing, by its SHA-256. What
    is too little for two shards gives none.

    >>> cells = {f"{number:064x}": 2 for number in range(300)}
    >>> [int(shard.last, 16) for shard in plan({("vgg16", "openvino", "float32"): cells})]
    [127, 255, 299]
    """
    total = sum(sum(cells.values()) for cells in missing.values())
    if total < 2 * LEAST:
        return []
    size = max(LEAST, -(-total // MOST))
    shards: list[Shard] = []
    for kind, cells in missing.items():
        first, images = None, 0
        last = ""
        for last in sorted(sha256 for sha256, views in cells.items() if views):
            first = first or last
            images += cells[last]
            if images >= size:
                shards.append(Shard(*kind, first, last))
                first, images = None, 0
        if first is not None:
            shards.append(Shard(*kind, first, last))
    return shards
