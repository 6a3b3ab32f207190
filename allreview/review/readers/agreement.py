"""How much readers agree beyond chance, and how surely that is known.

Given are Cohen's kappa for two (Cohen 1960), Fleiss' kappa for several (Fleiss 1971) and Krippendorff's alpha for
names (Krippendorff 2011), each beside the plain share of equal answers, because kappas fall when one class is rare
(Feinstein and Cicchetti 1990). All answers count: *unsure* and *unusable* are categories of their own, since a reader
who is sure of what another cannot tell does not agree with them; `classes_only` leaves them out.

Kappas take answers as given independently. An answer counts as independent when other reviewers' answers were hidden,
or when there were none to see; others are left out unless asked for.

Intervals are at 95 %, from resampling leak groups, or cells where subjects are not known
(`allreview.evaluation.intervals`). What cannot be said is None, with the reason in words.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from allreview.evaluation.intervals import FEWEST_UNITS, RESAMPLES, draws, percentile_interval
from allreview.evaluation.metrics import Confusion, Interval
from allreview.evaluation.resampling import numbered
from allreview.labels import NOT_CLASSES
from allreview.review.log.readings import Reading, by_cell, own_answers
from allreview.review.readers import coefficients
from allreview.review.readers.coefficients import Floats, Positions
from allreview.review.readers.consensus import FEWEST_CELLS, majority

OTHERS = "the majority of the others"
ADJUDICATED = "the adjudicated label"
THEMSELVES = "themselves, a second time"

TOO_FEW_CELLS = f"Fewer than {FEWEST_CELLS} cells to compare."
NO_CELLS = "No cell was read twice."
ONE_ANSWER = "Not defined: everybody gave one and the same answer throughout."
TOO_FEW_SUBJECTS = f"Fewer than {FEWEST_UNITS} subjects: too few for an interval."
NO_SPREAD = "No interval: resampled subjects show no spread, or lack an answer too often."

STRENGTHS = (
    (0.2, "slight"),
    (0.4, "fair"),
    (0.6, "moderate"),
    (0.8, "substantial"),
    (1.0, "almost perfect"),
)
"""Up to which kappa an agreement bears which name (Landis and Koch 1977, who call the division arbitrary)."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval over so many cells. `why` says in words why either is None."""

    value: float | None
    interval: Interval
    cells: int
    why: str | None = None


@dataclass(frozen=True)
class Compared:
    """Two ways the same cells were answered: two readers, or one reader and something else.

    `confusion` counts cells: in its rows what `first` said, in its columns what `second` said.
    """

    first: str
    second: str
    cells: int
    percent: Estimate
    kappa: Estimate
    confusion: Confusion


@dataclass(frozen=True)
class Agreement:
    """All figures of one set of readings. `dataclasses.asdict` gives it as JSON.

    `cells` were read, `shared` of them by two readers or more. `dependent` answers were left out (or, if they were
    asked for, counted), because the reader could see other reviewers' answers; `saw_prediction` of the counted ones
    were given with the model's opinion in view. `readers_per_cell` is the number of answers that the cells have which
    Fleiss' kappa counts: it needs equally many of each. `against_others` holds for each reader the majority of the
    others, never with their own answer in it.
    """

    readers: list[str]
    categories: list[str]
    readings: int
    cells: int
    shared: int
    dependent: int
    saw_prediction: int
    readers_per_cell: int | None
    percent: Estimate
    fleiss: Estimate
    krippendorff: Estimate
    pairs: list[Compared] = field(default_factory=list)
    against_others: list[Compared] = field(default_factory=list)
    against_adjudicated: list[Compared] = field(default_factory=list)
    with_themselves: list[Compared] = field(default_factory=list)


def strength(kappa: float) -> str:
    """What Landis and Koch (1977) call an agreement of this kappa."""
    if kappa < 0:
        return "poor"
    return next((name for highest, name in STRENGTHS if kappa <= highest), STRENGTHS[-1][1])


def agreement_of(
    readings: Sequence[Reading],
    units: Mapping[int, str],
    *,
    with_dependent: bool = False,
    classes_only: bool = False,
) -> Agreement:
    """Every figure of these readings.

    Args:
        readings: as `allreview.review.log.readings.readings` gives them, repeats and adjudications among them.
        units: what intervals resample, for each cell; a cell without one stands alone.
        with_dependent: also count answers given while others' answers could be seen.
        classes_only: leave out *unsure* and *unusable*.
    """
    kept = [r for r in readings if not (classes_only and r.label in NOT_CLASSES)]
    first = own_answers(kept, with_dependent=with_dependent)
    said = _by_reader(first)
    again = _by_reader(r for r in kept if r.repeat and (with_dependent or r.independent))
    adjudicated = {r.cell_id: r.label for r in kept if r.adjudication}
    readers = sorted(said, key=str.casefold)
    compare = _Comparing(_categories(kept), units)
    answers = by_cell(first)
    shared = {cell: labels for cell, labels in answers.items() if len(labels) > 1}
    same_number = _commonest(len(labels) for labels in shared.values())
    equally_read = {cell: labels for cell, labels in shared.items() if len(labels) == same_number}
    return Agreement(
        readers=readers,
        categories=compare.categories,
        readings=len(first),
        cells=len(answers),
        shared=len(shared),
        dependent=sum(not r.independent for r in own_answers(kept, with_dependent=True)),
        saw_prediction=sum("prediction" in (r.visible or ()) for r in first),
        readers_per_cell=same_number,
        percent=compare.all(shared, _PAIRED_PERCENT),
        fleiss=compare.all(equally_read, _FLEISS),
        krippendorff=compare.all(shared, _KRIPPENDORFF),
        pairs=_some(compare.two(a, b, said[a], said[b]) for a, b in combinations(readers, 2)),
        against_others=_some(
            compare.two(name, OTHERS, said[name], _majority_without(name, shared)) for name in readers
        ),
        against_adjudicated=_some(
            compare.two(name, ADJUDICATED, said[name], adjudicated) for name in readers
        ),
        with_themselves=_some(
            compare.two(name, THEMSELVES, said[name], again.get(name, {})) for name in readers
        ),
    )


def _categories(readings: Iterable[Reading]) -> list[str]:
    """The answers that were given: classes by name, then what names none."""
    given = {r.label for r in readings}
    return [*sorted(given - set(NOT_CLASSES)), *(label for label in NOT_CLASSES if label in given)]


def _by_reader(readings: Iterable[Reading]) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for r in readings:
        found.setdefault(r.reviewer, {})[r.cell_id] = r.label
    return found


def _commonest(numbers: Iterable[int]) -> int | None:
    """The most frequent number, the larger of two that are equally frequent."""
    counted = Counter(numbers)
    return max(counted, key=lambda number: (counted[number], number), default=None)


def _majority_without(reader: str, shared: Mapping[int, Mapping[str, str]]) -> dict[int, str]:
    """What most others said of each cell; of a single other, what they said. Cells without a majority are absent."""
    found = {
        cell: majority([label for name, label in labels.items() if name != reader])
        for cell, labels in shared.items()
    }
    return {cell: label for cell, label in found.items() if label is not None}


def _some(compared: Iterable[Compared]) -> list[Compared]:
    return [found for found in compared if found.cells]


@dataclass(frozen=True)
class _Coefficient:
    """A coefficient: its value from a library, and its values in resamples, both of one table for each cell."""

    exact: Callable[[Floats], float]
    resampled: Callable[[Floats, Floats, Positions, int], Floats]
    fewest: int = FEWEST_CELLS


@dataclass(frozen=True)
class _Comparing:
    """What every figure needs to know of the cells."""

    categories: list[str]
    units: Mapping[int, str]

    def all(self, answers: Mapping[int, Mapping[str, str]], coefficient: _Coefficient) -> Estimate:
        """A coefficient over all readers of the cells."""
        votes = [
            [list(labels.values()).count(name) for name in self.categories] for labels in answers.values()
        ]
        return self._estimate(coefficient, np.array(votes, dtype=np.float64), list(answers))

    def two(self, first: str, second: str, a: Mapping[int, str], b: Mapping[int, str]) -> Compared:
        """Cohen's kappa and the share of equal answers, over the cells that both have."""
        cells = [cell for cell in a if cell in b]
        place = {name: position for position, name in enumerate(self.categories)}
        one, other = (np.array([place[said[cell]] for cell in cells], dtype=np.int64) for said in (a, b))
        counts = coefficients.pair_counts(one, other, len(place))
        return Compared(
            first=first,
            second=second,
            cells=len(cells),
            percent=self._estimate(_EQUAL, counts, cells),
            kappa=self._estimate(_COHEN, counts, cells),
            confusion={"labels": self.categories, "matrix": counts.sum(axis=0).astype(int).tolist()},
        )

    def _estimate(self, coefficient: _Coefficient, tables: Floats, cells: Sequence[int]) -> Estimate:
        if len(cells) < coefficient.fewest:
            return Estimate(None, None, len(cells), TOO_FEW_CELLS if cells else NO_CELLS)
        value = coefficient.exact(tables)
        if not np.isfinite(value):
            return Estimate(None, None, len(cells), ONE_ANSWER)
        unit, units = numbered([self.units.get(cell) for cell in cells])
        if units < FEWEST_UNITS:
            return Estimate(value, None, len(cells), TOO_FEW_SUBJECTS)
        resampled = coefficient.resampled(draws(units, RESAMPLES, 0), tables, unit, units)
        interval = percentile_interval(resampled, units)
        return Estimate(value, interval, len(cells), None if interval else NO_SPREAD)


def _equal(counts: Floats) -> float:
    return float(np.trace(counts.sum(axis=0)) / len(counts))


def _cohen(counts: Floats) -> float:
    from sklearn.metrics import cohen_kappa_score

    _, first, second = counts.nonzero()
    return float(cohen_kappa_score(first, second)) if {*first, *second} - {first[0]} else float("nan")


def _fleiss(votes: Floats) -> float:
    from statsmodels.stats.inter_rater import fleiss_kappa

    return float(fleiss_kappa(votes, method="fleiss")) if _several_answers(votes) else float("nan")


def _krippendorff(votes: Floats) -> float:
    import krippendorff

    if not _several_answers(votes):
        return float("nan")
    return float(krippendorff.alpha(value_counts=votes.astype(int), level_of_measurement="nominal"))


def _paired_percent(votes: Floats) -> float:
    pairs = votes.sum(axis=1) * (votes.sum(axis=1) - 1)
    return float((votes * (votes - 1)).sum() / pairs.sum())


def _several_answers(votes: Floats) -> bool:
    return bool((votes.sum(axis=0) > 0).sum() > 1)


_EQUAL = _Coefficient(_equal, coefficients.percent, fewest=1)
_COHEN = _Coefficient(_cohen, coefficients.cohen)
_PAIRED_PERCENT = _Coefficient(_paired_percent, coefficients.paired_percent, fewest=1)
_FLEISS = _Coefficient(_fleiss, coefficients.fleiss)
_KRIPPENDORFF = _Coefficient(_krippendorff, coefficients.krippendorff)
