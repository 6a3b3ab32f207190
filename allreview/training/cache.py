"""The feature cache as people see it: what lies in it, which runs use it, and removing what nobody needs.

Without Keras.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.evaluation.naming import MODEL_TITLES
from allreview.recipe import Recipe, make_recipe
from allreview.settings import Settings
from allreview.training import feature_store
from allreview.training.feature_store import Stored
from allreview.training.views import ORIGINAL, SYMMETRIES, training_views
from db.tables import Recipe as RecipeRow
from db.tables import Run
from db.types import now

_ENGINES = {
    "tensorflow": "TensorFlow",
    "tensorflow-gpu": "TensorFlow on a GPU",
    "openvino": "OpenVINO",
}
_POOLING = {"max": "", "average": ", averaged", "depths": ", at several depths", "cell": ", within the cell"}
_VIEWS = {"original": "as it is", "flipped": "mirrored"}


@dataclass(frozen=True)
class CachedKey:
    """The features of one key. `runs` are the ids of those that would take features from it."""

    stored: Stored
    runs: list[int]

    @property
    def network(self) -> str:
        """'MobileNetV2, 224 pixels of the centre 300'."""
        key = self.stored.key
        if not self.stored.is_current:
            return "of another version of allreview"
        crop = f" of the centre {key['crop']}" if key["crop"] else ""
        pooling = _POOLING[key["pooling"]]
        colours = ", colours normalised" if key.get("colours") == "normalized" else ""
        name = MODEL_TITLES.get(key["backbone"], key["backbone"])
        return f"{name}, {key['image_size']} pixels{crop}{colours}{pooling}"

    @property
    def view(self) -> str:
        """'as it is', 'mirrored, turned by 90°', 'drawn version 2'; empty where nobody can say."""
        view = self.stored.key.get("view") if self.stored.is_current else ""
        if isinstance(view, dict):
            return f"drawn version {view['drawn'] + 1}"
        first, _, turned = (view or "").partition(", ")
        words = [] if first == "turned" else [_VIEWS.get(first, first)]
        return ", ".join([*words, f"{turned}°"] if turned else words)

    @property
    def engine(self) -> str:
        """'OpenVINO, float32'; empty where nobody can say."""
        key = self.stored.key
        if not self.stored.is_current:
            return ""
        return f"{_ENGINES.get(key['engine'], key['engine'])}, {key['precision']}"


@dataclass(frozen=True)
class Removed:
    """What pruning did: the keys that are gone, those that a worker writes to, and the bytes that are free now."""

    keys: list[CachedKey]
    in_use: list[CachedKey]
    size_bytes: int


def cached_keys(session: Session, settings: Settings) -> list[CachedKey]:
    """Everything in the cache, the last used first."""
    runs = [
        (run_id, make_recipe(body), weights, model)
        for run_id, body, weights, model in session.execute(
            sa.select(Run.id, RecipeRow.body, Run.weights_hash, Run.model_hash)
            .join(RecipeRow, RecipeRow.id == Run.recipe_id)
            .order_by(Run.id)
        )
    ]
    return [
        CachedKey(
            entry,
            [run_id for run_id, recipe, weights, model in runs if _is_used(entry, recipe, weights, model)],
        )
        for entry in feature_store.stored(settings.features)
    ]


def prune(
    keys: list[CachedKey],
    settings: Settings,
    *,
    older_than: timedelta | None = None,
    everything: bool = False,
) -> Removed:
    """Remove the keys that no run uses; or those that were not used for so long; or everything.

    Neighbours and maps that runs share are kept apart from features; they go by their age, or with everything.
    What a worker writes to stays.
    """
    since = now() - older_than if older_than is not None else None

    def chosen(key: CachedKey) -> bool:
        unused = key.stored.last_used < since if since is not None else not key.runs
        return everything or unused

    gone: list[CachedKey] = []
    in_use: list[CachedKey] = []
    for key in filter(chosen, keys):
        (gone if feature_store.remove(key.stored.path) else in_use).append(key)
    feature_store.sweep(settings.features)
    freed = sum(key.stored.size_bytes for key in gone)
    for path in shared_files(settings):
        size, used = path.stat().st_size, datetime.fromtimestamp(path.stat().st_mtime, now().tzinfo)
        if everything or (since is not None and used < since):
            path.unlink(missing_ok=True)
            freed += size
    return Removed(gone, in_use, freed)


def shared_files(settings: Settings) -> list[Path]:
    """The neighbours and maps that runs on the same cells share; see `training.ranking`."""
    folder = settings.features / "neighbourhoods"
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _is_used(entry: Stored, recipe: Recipe, weights_hash: str | None, model_hash: str | None) -> bool:
    """Whether a run by the recipe takes features from here, whatever computed them.

    `weights_hash` is the run's; it says which weights where there is one backbone and the fit is over. What a run's own
    network sees, trained end to end, is known by its `model_hash`.
    """
    key: dict[str, Any] = entry.key
    if not entry.is_current:
        return False
    came_from = key["weights_sha256"]
    own = recipe.mode == "finetune" and came_from == model_hash
    pretrained = recipe.weights == "imagenet" or recipe.backbone_run is not None
    whose = own or (pretrained and (recipe.partner is not None or weights_hash in (None, came_from)))
    views = [ORIGINAL, *training_views(recipe), *SYMMETRIES] if recipe.mode == "features" else [ORIGINAL]
    return (
        key["backbone"] in recipe.backbones
        and (key["image_size"], key["crop"]) == (recipe.image_size, recipe.crop)
        and key.get("colours", "original") == recipe.colours
        and key["pooling"] == recipe.pooling
        and key["view"] in [view.key(recipe) for view in views]
        and whose
    )
