"""What helps a reviewer find mistakes in a run's cells: a second opinion on labels, neighbours, a map.

The second opinion comes from frozen ImageNet features, which no label ever entered, by quick classifiers that each
leave out whole leak groups. So no cell is judged by what was learned of its own label, nor of its subject. Where
nothing is pretrained there is none.

Neighbours and map come from what the run's own network sees: the frozen features, or the features at the head of a
network that was trained, which a retrain of its head alone then finds in the cache. They depend on the features and the
set of cells alone, not on labels, and are kept under `features/neighbourhoods/`, so that a retrain on the same cells
finds them there. Both are of cells as they lie, also where a prediction is a mean over symmetries.
"""

import hashlib
import json
import shutil
import time
import uuid
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

import db
from allreview.models.building import features_network
from allreview.models.pretrained import file_hash
from allreview.models.saving import TrainedModel, load_model_of
from allreview.recipe import Recipe
from allreview.review import rankings
from allreview.review.rankings import CellMap, Neighbours, OutOfFold
from allreview.settings import Settings
from allreview.training import slots, threads
from allreview.training.features import decoded, feature_key
from allreview.training.pipeline import cell_images, features_of, load, weights_of
from allreview.training.progress import RunProgress
from allreview.training.runs import RunRow
from allreview.training.snapshots import SnapshotLine
from db.tables import Run, SnapshotCell

FOLDS = 5
NEIGHBOURS = 15
"""Kept of each cell: what its map needs."""
_TYPICAL_OF = 10  # neighbours that say how typical a cell is, as cleanlab counts them
_FORMAT = 1
_SEED = 0
SHARED_FROM = 200_000
"""From so many cells on, several workers share the folds of the second opinion. A fold of 50,000 cells in 1,280
features takes a core 2.4 s, and another worker has to read them all first: too little to share."""
_FOLDS = "folds"


def rank(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Store the run's out-of-fold probabilities and neighbours.

    Raises:
        StopRequested: somebody pressed Stop.
        UserError: a cell cannot be read any more.
    """
    run, cells = load(engine, run_id)
    progress = RunProgress(engine, run_id)
    progress.stage("rank")
    folder, hashes = settings.run_folder(run_id), [cell.sha256 for cell in cells]
    frozen: list[np.ndarray] = []
    if run.recipe.weights == "imagenet":
        frozen = _frozen_features(run.recipe, cells, settings, progress)
        features, given = np.concatenate(frozen, axis=1), folder / _FOLDS
        probabilities = out_of_fold(features, cells, run.classes, progress, given)
        if probabilities is not None:
            rankings.save(folder / rankings.OUT_OF_FOLD, OutOfFold(hashes, run.classes, probabilities))
        shutil.rmtree(given, ignore_errors=True)
    progress.check()
    kept = _kept(settings, [*_feature_keys(engine, settings, run), hashes], rankings.NEIGHBOURS)
    near = rankings.read_neighbours(kept)
    if near is None:
        seen = frozen if _is_as_it_came(run.recipe) else _network_features(settings, run, cells, progress)
        near = neighbours_of(seen, hashes)
        rankings.save(kept, near)
    rankings.save(folder / rankings.NEIGHBOURS, near)


def folds_to_share(engine: sa.Engine, settings: Settings, run_id: int) -> list[int]:
    """The folds of the run's second opinion that are worth giving to other workers; none where they aren't."""
    with db.reading(engine) as session:
        snapshot = sa.select(Run.snapshot_id).where(Run.id == run_id).scalar_subquery()
        cells = sa.select(sa.func.count()).where(SnapshotCell.snapshot_id == snapshot)
        if (session.scalar(cells) or 0) < SHARED_FROM:
            return []
    if slots.living(settings) < 2:
        return []
    run, cells = load(engine, run_id)
    if run.recipe.weights != "imagenet":
        return []
    folds = _folds_of(cells)
    return [] if folds is None else list(range(int(folds.max()) + 1))


def judge_fold(engine: sa.Engine, settings: Settings, run_id: int, fold: int) -> None:
    """Leave the probabilities of one fold's cells in the run's folder, for `rank` to find.

    Raises:
        StopRequested: somebody pressed Stop.
        UserError: a cell cannot be read any more.
    """
    from threadpoolctl import threadpool_limits

    run, cells = load(engine, run_id)
    progress = RunProgress(engine, run_id)
    features = np.concatenate(_frozen_features(run.recipe, cells, settings, progress), axis=1)
    progress.check()
    folds = _folds_of(cells)
    assert folds is not None
    with threadpool_limits(1, user_api="blas"):
        found = _judged(fold, folds, features, cells, run.classes)
    folder = settings.run_folder(run_id) / _FOLDS
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{uuid.uuid4().hex}.tmp"
    with temporary.open("wb") as file:
        np.save(file, found)
    temporary.replace(folder / f"{fold}.npy")


def draw_map(settings: Settings, run_id: int) -> None:
    """Store the run's map, from its neighbours; does nothing where it has none.

    A map that was drawn of the same neighbours is taken as it is, and nothing is imported for it.
    """
    near = rankings.neighbours(settings, run_id)
    if near is None:
        return
    content = [
        hashlib.sha256(near.positions.tobytes() + near.similarities.tobytes()).hexdigest(),
        near.sha256,
    ]
    kept = _kept(settings, content, rankings.MAP)
    drawn = rankings.read_map(kept)
    if drawn is None:
        drawn = CellMap(near.sha256, map_of(near))
        rankings.save(kept, drawn)
    rankings.save(settings.run_folder(run_id) / rankings.MAP, drawn)


def out_of_fold(
    features: np.ndarray,
    cells: Sequence[SnapshotLine],
    classes: Sequence[str],
    progress: RunProgress,
    given: Path | None = None,
) -> NDArray[np.float32] | None:
    """Probabilities [n, classes] of all cells, each by a classifier fitted without the cell's leak group.

    Cells that are unsure or unusable are predicted, not fitted on. Folds depend on source labels and leak groups, so
    relabelling moves no cell between them. NaN where a classifier knew no cell of the class; None where all cells
    are of one leak group. Folds that other workers have left in the folder `given` are taken from there.
    """
    folds = _folds_of(cells)
    if folds is None:
        return None
    from threadpoolctl import threadpool_limits

    found = np.full((len(cells), len(classes)), np.nan, dtype=np.float32)
    last = int(folds.max())

    def judge(fold: int) -> None:
        there = _fold_given(given, fold, (int((folds == fold).sum()), len(classes)))
        found[folds == fold] = _judged(fold, folds, features, cells, classes) if there is None else there

    # A fold a thread: its matrices are too small for several threads to share without waiting for one another.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(min(threads.count(), 4)) as pool:
        try:
            for done, _ in enumerate(pool.map(judge, range(last + 1)), start=1):
                progress.check()
                progress.on_batch(done, last + 1, 0.0, 0.0)
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def _judged(
    fold: int,
    folds: NDArray[np.int64],
    features: np.ndarray,
    cells: Sequence[SnapshotLine],
    classes: Sequence[str],
) -> NDArray[np.float32]:
    """Probabilities [cells of the fold, classes] by a classifier fitted on all other cells that have a class."""
    labels = np.array([cell.label for cell in cells])
    left_out, fitted = folds == fold, (folds != fold) & np.isin(labels, classes)
    found = np.full((int(left_out.sum()), len(classes)), np.nan, dtype=np.float32)
    if left_out.any() and len(set(labels[fitted])) > 1:
        model = _classifier(int(fitted.sum())).fit(features[fitted], labels[fitted])
        columns = [list(classes).index(name) for name in model.classes_]
        found[:, columns] = model.predict_proba(features[left_out])
    return found


def _fold_given(folder: Path | None, fold: int, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """What another worker has left of the fold, None where there is nothing of use."""
    try:
        found = np.load(folder / f"{fold}.npy") if folder is not None else None
    except (OSError, ValueError, EOFError):
        return None
    return found if found is not None and found.shape == shape else None


def _folds_of(cells: Sequence[SnapshotLine]) -> NDArray[np.int64] | None:
    groups = np.array([cell.group for cell in cells])
    return _folds(groups, np.array([cell.source_label for cell in cells]))


def _folds(groups: np.ndarray, labels: np.ndarray) -> NDArray[np.int64] | None:
    """The number of each cell's fold: whole leak groups, the classes as balanced as they allow."""
    from sklearn.model_selection import StratifiedGroupKFold

    most = min(FOLDS, len(set(groups)), max(np.unique(labels, return_counts=True)[1]))
    if most < 2:
        return None
    folds = np.zeros(len(groups), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer cells than folds
        for number, (_, left_out) in enumerate(StratifiedGroupKFold(most).split(folds, labels, groups)):
            folds[left_out] = number
    return folds


def _classifier(n: int) -> Any:
    """Logistic regression on standardised features, fitted on n cells; its L2 penalty weighs as much as the mean
    loss. On C-NMC it is as good as any weight from a tenth to ten times that, and as support vectors on principal
    components, which take ten times as long."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / n, class_weight="balanced", max_iter=300))


def neighbours_of(blocks: Sequence[np.ndarray], hashes: list[str]) -> Neighbours:
    """The cells most like each cell by the cosine of their features, and how typical each is.

    `blocks` are features [n, d], one of each network; each network counts the same. Typicality is
    exp(-d / median d), d being the mean cosine distance to a cell's ten nearest neighbours: Kuan and Mueller, Back
    to the Basics: Revisiting Out-of-Distribution Detection Baselines, 2022, as in cleanlab.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    alike: list[np.ndarray] = [np.asarray(normalize(block)) for block in blocks]
    joined: Any = normalize(np.concatenate(alike, axis=1))
    search: Any = NearestNeighbors(metric="cosine", algorithm="brute").fit(joined)
    distances, positions = search.kneighbors(n_neighbors=min(NEIGHBOURS, len(joined) - 1))
    nearest = distances[:, :_TYPICAL_OF].mean(axis=1)
    usual = max(float(np.median(nearest)), 100 * float(np.finfo(np.float32).eps))
    return Neighbours(
        sha256=hashes,
        positions=positions.astype(np.int32),
        similarities=(1 - distances).astype(np.float32),
        typicality=np.exp(-nearest / usual).astype(np.float32),
        plane=PCA(2, svd_solver="randomized", random_state=_SEED).fit_transform(joined).astype(np.float32),
    )


def map_of(near: Neighbours) -> NDArray[np.float32]:
    """Where each cell lies, [n, 2]: UMAP from the neighbours, begun at the plane of the features.

    It needs no features, nor a search for neighbours, which UMAP takes a minute for. A handful of cells lies as on
    the plane.
    """
    count, k = near.positions.shape
    if k < NEIGHBOURS:
        return near.plane
    own = np.arange(count, dtype=np.int32)[:, None]
    positions = np.hstack([own, near.positions])
    distances = np.hstack([np.zeros_like(own, dtype=np.float32), 1 - near.similarities])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # that it won't place new cells, and uses one thread for the seed's sake
        import umap

        drawn = umap.UMAP(
            n_neighbors=k + 1,
            random_state=_SEED,
            init=near.plane,  # type: ignore[arg-type] - UMAP takes an array
            precomputed_knn=(positions, distances),  # type: ignore[arg-type]
        ).fit_transform(near.plane)
    return np.asarray(drawn, dtype=np.float32)


def _frozen_features(
    recipe: Recipe, cells: list[SnapshotLine], settings: Settings, progress: RunProgress
) -> list[np.ndarray]:
    """What each of the recipe's backbones sees as it came, from the cache where it is there."""
    alone = [_as_it_came(recipe.alone(name)) for name in recipe.backbones]
    return [features_of(one, cells, settings, progress, report=progress.on_images) for one in alone]


def _network_features(
    settings: Settings, run: RunRow, cells: list[SnapshotLine], progress: RunProgress
) -> list[np.ndarray]:
    """What the run's trained network, or each member's, gives to its head."""
    if run.recipe.partner is None:
        of_head = run.recipe if run.recipe.backbone_run is not None else run.recipe.of_its_head(run.id)
        return [features_of(of_head, cells, settings, progress, report=progress.on_images)]
    return [
        _at_the_head(load_model_of(settings, run_id), cells, settings, progress)
        for run_id in run.members or [run.id]
    ]


def _is_as_it_came(recipe: Recipe) -> bool:
    """Whether the backbone was trained by nobody here."""
    return recipe.mode == "features" and recipe.backbone_run is None


def _as_it_came(recipe: Recipe) -> Recipe:
    """The recipe on the backbone as it came, whoever trained it since: no label entered its features."""
    return recipe.model_copy(update={"backbone_run": None})


def _at_the_head(
    trained: TrainedModel, cells: list[SnapshotLine], settings: Settings, progress: RunProgress
) -> np.ndarray:
    import tensorflow as tf

    network = features_network(trained.of_one_way)
    forward: Any = tf.function(lambda batch: network(batch, training=False), reduce_retracing=True)
    found: list[np.ndarray] = []
    started, done = time.perf_counter(), 0
    for batch, pixels in decoded(cell_images(cells), trained.recipe, settings.max_pixels):
        progress.check()
        found.append(forward(tf.constant(trained.inputs(pixels))).numpy())
        done += len(batch)
        progress.on_images(done, len(cells), done / (time.perf_counter() - started))
    return np.concatenate(found)


def _feature_keys(engine: sa.Engine, settings: Settings, run: RunRow) -> list[Any]:
    """What the features of neighbours depend on besides the cells."""
    if run.recipe.mode == "features":
        weights = weights_of(run.recipe, settings)
        return [feature_key(run.recipe, name, file_hash(weights[name])) for name in run.recipe.backbones]
    with db.reading(engine) as session:
        query = sa.select(Run.model_hash).where(Run.id.in_(run.members or [run.id])).order_by(Run.id)
        return list(session.scalars(query))


def _kept(settings: Settings, content: list[Any], name: str) -> Path:
    """Where what follows from `content` is kept for other runs."""
    text = json.dumps([_FORMAT, *content], sort_keys=True)
    return settings.features / "neighbourhoods" / f"{hashlib.sha256(text.encode()).hexdigest()}-{name}"
