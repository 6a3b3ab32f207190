"""Features that several machines share through `ALLREVIEW_ARTEFACTS`. Without Keras.

A worker that has computed features closes its segments, gives them a name that nobody writes to again
(`<id>.shared.<width>`), and copies them to `<artefacts>/features/<key>/`. Another machine gets the segments it lacks
before it computes. Each row brings its checksum along, so a damaged copy is computed again. Where the shared place
cannot be used, work goes on with what is here, and the segments are copied the next time.
"""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from allreview.artefacts import location
from allreview.errors import UserError
from allreview.places import AT_ONCE, Place, download, files_in, upload
from allreview.settings import Settings
from allreview.training.feature_store import KEY_FILE, SHARED, close_segments

log = logging.getLogger("allreview.feature_sharing")


def obtain_features(settings: Settings, folders: Iterable[Path]) -> bool:
    """Get the segments that these keys' folders lack, and say whether any came."""
    came = False
    for folder in folders if settings.artefacts else ():
        try:
            came |= _obtain(_shared(settings, folder), folder)
        except UserError as error:
            log.warning("no features can be had from %s: %s", settings.artefacts, error)
            break
    return came


def share_features(settings: Settings, folders: Iterable[Path]) -> None:
    """Close the segments of these keys' folders that nobody writes to, and copy those that are not shared yet."""
    for folder in folders if settings.artefacts else ():
        close_segments(folder)
        try:
            _share(folder, _shared(settings, folder))
        except (UserError, OSError) as error:
            log.warning("features are not in %s yet: %s", settings.artefacts, error)
            break


def _shared(settings: Settings, folder: Path) -> Place:
    root = location(settings)
    assert root is not None
    return root / "features" / folder.name


def _obtain(source: Place, folder: Path) -> bool:
    there = files_in(source)
    lacking = [name for name in there if not (folder / name).exists()]
    # Keys come after their vectors: a segment counts from its keys on.
    for names in (
        [n for n in lacking if not n.endswith(".keys")],
        [n for n in lacking if n.endswith(".keys")],
    ):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: download(source / name, folder / name, there[name]), names))
    return any(name.endswith(".keys") for name in lacking)


def _share(folder: Path, target: Place) -> None:
    there = files_in(target)
    own = [path for path in folder.glob(f"*.{SHARED}.*") if path.suffix in (".keys", ".vectors")]
    new = [path for path in own if path.name not in there]
    if new and KEY_FILE not in there:
        upload(folder / KEY_FILE, target / KEY_FILE)
    for path in sorted(new, key=lambda path: path.suffix == ".keys"):
        upload(path, target / path.name)
