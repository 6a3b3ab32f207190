"""After a run that trained everything: a new head on what its backbone sees, as quickly as on frozen features."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.models.building import HEAD_LAYERS
from allreview.models.saving import load_model
from allreview.places import cell_file
from allreview.recipe import Recipe, make_recipe
from allreview.review.log.annotations import decide, reviewer_named
from allreview.settings import Settings, current_settings
from allreview.store import open_store
from allreview.training import cache, feature_store, inference, jobs, snapshots
from allreview.training.retraining import head_of_run
from allreview.training.runs import get_run
from db.tables import Prediction, Run
from tests import workers
from tests.conftest import Trained

EVERYTHING = make_recipe(
    {
        "mode": "finetune", "image_size": 64, "crop": 300, "epochs": 1, "learning_rate": 1e-4, "rotation": 90,
        "stain": 0.2, "optimizer": "adamw", "schedule": "cosine", "label_smoothing": 0.1,
        "test_time_augmentation": "flip",
    }
)  # fmt: skip


def test_the_head_is_retrained_on_the_backbone_that_a_run_trained(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On processors that multiply in 16 bits, OpenVINO's features would be compared with a model in 32.
    monkeypatch.setenv("ALLREVIEW_ENGINE", "tensorflow")
    settings = current_settings()
    engine = open_store(settings)
    whole = jobs.submit(engine, settings, dataset_id=trained.dataset, recipe=EVERYTHING)
    assert workers.wait_until_over(engine, whole).state == "finished"
    with db.reading(engine) as session:
        cells = snapshots.lines(session, get_run(session, whole).snapshot_id)
    changed = next(cell for cell in cells if cell.part == "train")
    label = "hem" if changed.label == "all" else "all"
    decide(engine, cell_id=changed.cell_id, label=label, reviewer_id=reviewer_named(engine, "Ann"), seen=None)
    heads = [jobs.retrain(engine, settings, whole, head_only=True)]
    assert workers.wait_until_over(engine, heads[0]).state == "finished"
    before = computed(settings)
    heads.append(jobs.retrain(engine, settings, heads[0]))
    assert workers.wait_until_over(engine, heads[1]).state == "finished"
    assert computed(settings) == before  # no network was asked: a retrain of a retrain has all it needs
    with db.reading(engine) as session:
        runs = [get_run(session, run) for run in (whole, *heads)]
        parts = [
            {line.cell_id: line.part for line in snapshots.lines(session, run.snapshot_id)} for run in runs
        ]
        used = [key.runs for key in cache.cached_keys(session, settings) if heads[0] in key.runs]
        model_hash = session.scalar(sa.select(Run.model_hash).where(Run.id == whole))
        said = {
            prediction.cell_id: prediction.probabilities
            for prediction in session.scalars(sa.select(Prediction).where(Prediction.run_id == heads[0]))
        }
    assert [(run.recipe.mode, run.recipe.backbone_run) for run in runs[1:]] == [("features", whole)] * 2
    assert parts[0] == parts[1] == parts[2]
    assert runs[1].weights_hash == runs[2].weights_hash == model_hash
    assert [whole, *heads] in used
    same_backbone_and_another_head(settings.run_folder(whole), settings.run_folder(heads[0]))
    some = cells[:5]
    again = inference.predict_files(settings, heads[0], [cell_file(cell.path) for cell in some])
    for cell, entry in zip(some, again, strict=True):
        assert entry["probabilities"] == pytest.approx(said[cell.cell_id], abs=1e-4)
    engine.dispose()


def computed(settings: Settings) -> int:
    return sum(entry.cells for entry in feature_store.stored(settings.features))


def same_backbone_and_another_head(whole: Path, head: Path) -> None:
    one, other = (load_model(folder).of_one_way for folder in (whole, head))
    for layer in one.layers:
        twin = other.get_layer(layer.name) if layer.name in {each.name for each in other.layers} else None
        if twin is None or not layer.get_weights():
            continue
        same = all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), twin.get_weights(), strict=True))
        assert same != (layer.name in HEAD_LAYERS), layer.name


def test_the_recipe_of_a_head_shows_cells_as_they_are_and_fits_as_a_head_does() -> None:
    found = EVERYTHING.of_its_head(7)
    assert (found.mode, found.backbone_run) == ("features", 7)
    assert not found.flip
    assert not found.augments_pixels
    assert found.label_smoothing == 0.1
    assert (found.optimizer, found.schedule, found.epochs) == ("adamax", "constant", 20)
    assert (found.preparation, found.test_time_augmentation) == (EVERYTHING.preparation, "flip")
    scratch = make_recipe({"backbone": "alexnet", "weights": "none", "mode": "finetune"})
    assert scratch.of_its_head(3).weights == "none"


def test_a_head_is_not_trained_on_a_run_it_does_not_come_from(trained: Trained) -> None:
    settings = current_settings()
    engine = open_store(settings)
    recipe = EVERYTHING.of_its_head(trained.run)
    for parent, sentence in (
        (None, "retrain that run's head"),
        (trained.run, "trained no such backbone end to end"),
        (99, "no run 99"),
    ):
        with pytest.raises(UserError, match=sentence):
            jobs.submit(engine, settings, dataset_id=trained.dataset, recipe=recipe, parent_id=parent)
    with pytest.raises(UserError, match="trained only its head"):
        jobs.retrain(engine, settings, trained.run, head_only=True)
    elsewhere = EVERYTHING.of_its_head(trained.retrain)
    with pytest.raises(UserError, match=f"no retrain of run {trained.retrain}"):
        jobs.submit(engine, settings, dataset_id=trained.dataset, recipe=elsewhere, parent_id=trained.run)
    with pytest.raises(UserError, match="is an ensemble"):
        head_of_run(Recipe(mode="finetune", partner="vgg16"), 5)
    engine.dispose()
