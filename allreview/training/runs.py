"""Reading runs: one row as pages and the command line show it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from db.tables import Dataset, EpochMetric, Run, Snapshot
from db.tables import Recipe as RecipeRow
from db.types import now

HISTORY = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_cross_entropy",
    "learning_rate",
    "seconds",
)
UNFINISHED = ("queued", "running")

KEEP = "keep"
"""The stage of a finished run while its folder is not complete."""
STAGES = {
    "features": "Computing features",
    "fit": "Training",
    "members": "Waiting for its members",
    "evaluate": "Evaluating",
    "rank": "Finding doubtful labels and neighbours",
    KEEP: "Writing figures and model card",
}
"""What a run does, in words, in the order it does it."""


@dataclass(frozen=True)
class RunRow:
    """A run with what belongs to it."""

    id: int
    dataset_id: int
    dataset: str
    recipe: Recipe
    snapshot_id: int
    snapshot_hash: str
    parent_id: int | None
    series: str | None
    members: list[int]
    classes: list[str]
    state: str
    stop_requested: bool
    message: str | None
    stage: str | None
    done: int
    total: int
    rate: float | None
    seconds_left: float | None
    best_epoch: int | None
    weights_hash: str | None
    temperature: float | None
    machine: dict[str, Any]
    metrics: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    epochs: list[EpochMetric] = field(default_factory=list)

    @property
    def shares_patients(self) -> bool:
        """Whether test cells are of patients that were trained on: by the split, or as it turned out."""
        return self.recipe.shares_patients or self.metrics.get("split", {}).get("shares_patients", False)

    @property
    def unfinished(self) -> bool:
        return self.state in UNFINISHED

    @property
    def complete(self) -> bool:
        """Whether nothing more is added to the run's folder but heat maps and the map."""
        return not self.unfinished and self.stage is None

    @property
    def history(self) -> list[dict[str, float]]:
        """The epochs as plain values, in order, by the names in `HISTORY`."""
        return [{name: getattr(row, name) for name in HISTORY} for row in self.epochs]

    @property
    def seconds(self) -> float | None:
        """Seconds from start to end, or to now while it runs."""
        if self.started_at is None:
            return None
        return ((self.finished_at or now()) - self.started_at).total_seconds()


def list_runs(
    session: Session, *, dataset_id: int | None = None, states: tuple[str, ...] | None = None
) -> list[RunRow]:
    """Runs, newest first."""
    query = _query().order_by(Run.id.desc())
    if dataset_id is not None:
        query = query.where(Run.dataset_id == dataset_id)
    if states is not None:
        query = query.where(Run.state.in_(states))
    return [_row(*found) for found in session.execute(query)]


def get_run(session: Session, run_id: int, *, with_epochs: bool = True) -> RunRow:
    """One run.

    Raises:
        UserError: there is no such run.
    """
    found = session.execute(_query().where(Run.id == run_id)).one_or_none()
    if found is None:
        raise UserError(f"There is no run {run_id}. See the list of runs for their numbers.")
    epochs = []
    if with_epochs:
        query = sa.select(EpochMetric).where(EpochMetric.run_id == run_id).order_by(EpochMetric.epoch)
        epochs = list(session.scalars(query))
    return _row(*found, epochs=epochs)


def _query() -> sa.Select[Run, str, dict[str, Any], str]:
    return (
        sa.select(Run, Dataset.name, RecipeRow.body, Snapshot.hash)
        .join(Dataset, Dataset.id == Run.dataset_id)
        .join(RecipeRow, RecipeRow.id == Run.recipe_id)
        .join(Snapshot, Snapshot.id == Run.snapshot_id)
    )


def _row(
    run: Run, dataset: str, recipe: dict[str, Any], snapshot: str, epochs: list[EpochMetric] | None = None
) -> RunRow:
    return RunRow(
        id=run.id,
        dataset_id=run.dataset_id,
        dataset=dataset,
        recipe=make_recipe(recipe),
        snapshot_id=run.snapshot_id,
        snapshot_hash=snapshot,
        parent_id=run.parent_id,
        series=run.series,
        members=run.members,
        classes=run.classes,
        state=run.state,
        stop_requested=run.stop_requested,
        message=run.message,
        stage=run.stage,
        done=run.done,
        total=run.total,
        rate=run.rate,
        seconds_left=run.seconds_left,
        best_epoch=run.best_epoch,
        weights_hash=run.weights_hash,
        temperature=run.temperature,
        machine=run.machine,
        metrics=run.metrics,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        epochs=epochs or [],
    )
