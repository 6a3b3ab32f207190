"""The run of an averaged ensemble: it waits for its members, and its model is the mean of theirs.

There is nothing to train. What the members say was calibrated when they were saved; the mean is not tempered
again.
"""

import time
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.models.averaging import average_models
from allreview.models.backbones import backbone_named
from allreview.models.pretrained import joint_hash
from allreview.models.saving import TrainedModel, load_model_of, save_model
from allreview.settings import Settings
from allreview.training import machine
from allreview.training.progress import RunProgress
from allreview.training.runs import RunRow, get_run
from db.tables import Prediction, Run

_LOOK_EVERY = 1.0  # seconds between looks at the members


def average(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Wait until the members are finished, and save the mean of their models as the run's own.

    Raises:
        StopRequested: somebody pressed Stop while it waited.
        UserError: a member failed, was stopped, or has lost its model; says which and what to do.
    """
    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
    progress = RunProgress(engine, run_id)
    progress.stage("members")
    members = _finished(engine, run, progress)
    progress.check()
    models = [_model(settings, run, member) for member in members]
    weights_hash = joint_hash(
        {member.recipe.backbone: member.weights_hash for member in members if member.weights_hash}
    )
    model_hash = save_model(
        settings.run_folder(run_id),
        average_models(models),
        recipe=run.recipe,
        classes=run.classes,
        weights_hash=weights_hash,
    )
    with db.writing(engine) as session:
        session.execute(
            sa.update(Run)
            .where(Run.id == run_id)
            .values(weights_hash=weights_hash, model_hash=model_hash, machine=machine.describe(run.recipe))
        )


def probabilities(engine: sa.Engine, run_id: int, cell_ids: Sequence[int]) -> np.ndarray:
    """The mean of the members' stored predictions, float32 [n, classes], in the order of the cells given.

    Columns are in the order of the run's classes. It is what the run's own model says, without a look at a cell.

    Raises:
        UserError: a member has no prediction for one of the cells.
    """
    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
        if not run.members:
            raise ValueError(f"run {run_id} is no average of others")
        tables = [_stored(session, member, cell_ids, run.classes) for member in run.members]
    return np.stack(tables).mean(axis=0).astype(np.float32)


def _stored(session: Session, run_id: int, cell_ids: Sequence[int], classes: list[str]) -> np.ndarray:
    query = sa.select(Prediction.cell_id, Prediction.probabilities).where(Prediction.run_id == run_id)
    found = {cell_id: row for cell_id, row in session.execute(query)}  # noqa: C416 - rows are no pairs
    missing = [cell_id for cell_id in cell_ids if cell_id not in found]
    if missing:
        raise UserError(
            f"Run {run_id} has no prediction for {len(missing)} of the cells: train it and the ensemble again."
        )
    return np.array([[found[cell_id][name] for name in classes] for cell_id in cell_ids])


def _finished(engine: sa.Engine, run: RunRow, progress: RunProgress) -> list[RunRow]:
    """The members in the order of `recipe.members`, once all have finished."""
    while True:
        with db.reading(engine) as session:
            members = [get_run(session, member, with_epochs=False) for member in run.members]
        for member in members:
            if member.state in ("failed", "stopped"):
                raise UserError(_member_ended(member))
        waiting = [member for member in members if member.state != "finished"]
        progress.on_batch(len(members) - len(waiting), len(members), 0.0, 0.0)
        if not waiting:
            return _in_order(run, members)
        progress.check()
        time.sleep(_LOOK_EVERY)


def _member_ended(member: RunRow) -> str:
    title = backbone_named(member.recipe.backbone).title
    if member.state == "stopped":
        return f"Its member, run {member.id} ({title}), was stopped: train the ensemble again."
    reason = f" ({member.message.rstrip('.')})" if member.message else ""
    return (
        f"Its member, run {member.id} ({title}), failed{reason}: put that right and train the ensemble again."
    )


def _in_order(run: RunRow, members: list[RunRow]) -> list[RunRow]:
    by_recipe = {member.recipe.hash: member for member in members if member.snapshot_id == run.snapshot_id}
    found = [by_recipe.get(recipe.hash) for recipe in run.recipe.members]
    if not found or None in found or len(members) != len(found):
        raise UserError("Its members were not trained by its recipe on its cells: train the ensemble again.")
    return [member for member in found if member is not None]


def _model(settings: Settings, run: RunRow, member: RunRow) -> TrainedModel:
    try:
        model = load_model_of(settings, member.id)
    except UserError as error:
        raise UserError(f"Its member, run {member.id}, cannot be used: {error}") from None
    if model.classes != run.classes:
        raise UserError(
            f"Its member, run {member.id}, knows the classes {', '.join(model.classes)}, not "
            f"{', '.join(run.classes)}: train the ensemble again."
        )
    return model
