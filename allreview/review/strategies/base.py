"""What a strategy is, and the registry of them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from sqlalchemy.orm import Session

from allreview.review import rankings
from allreview.settings import Settings


@dataclass(frozen=True)
class QueueEntry:
    """One cell of a queue. `score` in [0, 1]: the lower, the more it deserves a look.

    Without a run there is neither part nor prediction. `control` marks a cell that was mixed in at random,
    although nothing is wrong with it.
    """

    cell_id: int
    sha256: str
    subject: str | None
    part: str | None
    source_label: str
    current_label: str
    predicted: str
    probability: float
    probabilities: dict[str, float]
    score: float = 1.0
    reason: str = ""
    path: str = ""
    control: bool = False


@dataclass(frozen=True)
class Evidence:
    """What strategies may ask besides the cells themselves. Files are read once, and only when asked for."""

    session: Session
    settings: Settings
    dataset_id: int
    run_id: int | None
    seed: int = 0

    @cached_property
    def out_of_fold(self) -> rankings.OutOfFold | None:
        return None if self.run_id is None else rankings.out_of_fold(self.settings, self.run_id)

    @cached_property
    def neighbours(self) -> rankings.Neighbours | None:
        return None if self.run_id is None else rankings.neighbours(self.settings, self.run_id)


class Strategy:
    """One way to say which cells deserve a look, and in which order.

    `name` is what it is called by; `title` and `description` are its words on pages. A strategy that `needs_run`
    ranks the cells of a run. One that is `by_suspicion` looks for mistakes: its queue is kept diverse, and cells
    about which nothing is wrong can be mixed in. One that `rereads` is about cells that were decided already.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    needs_run: ClassVar[bool] = True
    by_suspicion: ClassVar[bool] = True
    rereads: ClassVar[bool] = False

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        """The cells that belong to the queue, in any order, each with its score and a reason in words.

        Raises:
            UserError: what it ranks by is not there; says what to do.
        """
        raise NotImplementedError

    def count(self, cells: Sequence[QueueEntry], evidence: Evidence) -> int:
        """How many cells `score` would give.

        Raises:
            UserError: as `score`.
        """
        return len(self.score(cells, evidence))


STRATEGIES: dict[str, type[Strategy]] = {}


def strategy(kind: type[Strategy]) -> type[Strategy]:
    """Register a strategy under its name."""
    STRATEGIES[kind.name] = kind
    return kind


def lot(seed: int, sha256: str) -> float:
    """A number in [0, 1) drawn for a cell: the same for the same seed, whatever other cells there are."""
    digest = hashlib.sha256(f"{seed} {sha256}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def margin(weights: Iterable[float]) -> float:
    """How far the first is ahead of the second, as a share of all: 0 for a tie, 1 where there is only one."""
    ordered = sorted(weights, reverse=True)
    return (ordered[0] - sum(ordered[1:2])) / sum(ordered)
