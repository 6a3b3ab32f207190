"""What a worker makes of a run, in a place that other machines see too: `ALLREVIEW_ARTEFACTS`, if it is set.

A run's folder is written on the machine that trains it, as ever. When it is complete, and whenever something is added
to it, it is copied to `<artefacts>/runs/<id>/`; a machine that is asked for a file it lacks gets it from there. So
every machine reads its own disk, and a file travels once. A copy that could not be made is remembered in the run's
folder, and made by the worker later. Files are whole or not there, at both ends.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from allreview.errors import UserError
from allreview.places import AT_ONCE, Entry, Place, download, files_in, place, upload
from allreview.settings import Settings

log = logging.getLogger("allreview.artefacts")

LEFT = ".not-copied"
"""A file in a run's folder that says that its copy is not complete."""
NEVER = ("backup", "attempts.json")
"""What stays on its machine: what a fit that was cut off goes on from, and how often it was."""

_REMEMBERED = (
    1.0  # seconds that a listing is believed, so that a page that waits for a file does not ask at each look
)
_SPARED = 30.0  # seconds for which a storage that did not answer is not asked again
_listings: dict[str, tuple[float, dict[str, Entry] | UserError]] = {}
_listing = threading.Lock()


def location(settings: Settings) -> Place | None:
    """Where artefacts are shared; None where they are not.

    Raises:
        UserError: the setting names no folder and no object storage of a kind that is known.
    """
    return place(settings.artefacts).expanduser() if settings.artefacts else None


def mirror(settings: Settings, run_id: int) -> str | None:
    """Copy what is new in a run's folder; returns why that could not be done, as a clause, or None.

    What could not be copied is left to `mirror_left`.
    """
    if not settings.artefacts:
        return None
    folder = settings.run_folder(run_id)
    if not folder.is_dir():
        return None
    left = folder / LEFT
    try:
        target = _run(settings, run_id)
        left.touch()
        _copy_new(folder, target)
        left.unlink(missing_ok=True)
    except (UserError, OSError) as error:
        log.warning("the folder of run %s is not in %s yet: %s", run_id, settings.artefacts, error)
        with suppress(OSError):
            left.touch()
        return str(error)
    return None


def mirror_left(settings: Settings) -> list[int]:
    """Copy the runs that could not be copied before; returns those that are copied now."""
    left = sorted(int(path.parent.name) for path in (settings.root / "runs").glob(f"*/{LEFT}"))
    done = []
    for run_id in left:
        if mirror(settings, run_id) is not None:
            break  # nor will the next one
        done.append(run_id)
    return done


def obtain(settings: Settings, run_id: int, names: Sequence[str]) -> None:
    """Get those of a run's files that this machine lacks and the shared place has.

    `names` are paths below the run's folder.

    Raises:
        UserError: the shared place cannot be read; a whole sentence.
    """
    found = _elsewhere(settings, run_id, names)
    if found:
        _fetch(settings, _run(settings, run_id), settings.run_folder(run_id), found)


def obtain_if_can(settings: Settings, run_id: int, names: Sequence[str]) -> None:
    """As `obtain`, of files that a page can do without: why they cannot be had is only noted."""
    try:
        obtain(settings, run_id, names)
    except UserError as error:
        log.warning("%s", error)


def obtain_folder(settings: Settings, run_id: int) -> None:
    """Get all of a run's files that this machine lacks.

    Raises:
        UserError: the shared place cannot be read; a whole sentence.
    """
    if not settings.artefacts:
        return
    source, folder = _run(settings, run_id), settings.run_folder(run_id)
    with _telling(settings):
        there = files_in(source, below=True)
    _fetch(
        settings,
        source,
        folder,
        {name: entry for name, entry in there.items() if not (folder / name).exists()},
    )


def available(settings: Settings, run_id: int, names: Sequence[str]) -> list[str]:
    """Those of a run's files that lie here, or can be had from the shared place; nothing is copied."""
    here = {name for name in names if (settings.run_folder(run_id) / name).is_file()}
    try:
        there = _elsewhere(settings, run_id, names)
    except UserError as error:
        log.warning("%s", error)
        there = {}
    return [name for name in names if name in here or name in there]


def _run(settings: Settings, run_id: int) -> Place:
    root = location(settings)
    assert root is not None
    return root / "runs" / str(run_id)


def _elsewhere(settings: Settings, run_id: int, names: Sequence[str]) -> dict[str, Entry]:
    """Those of the names that this machine lacks and the shared place has."""
    if not settings.artefacts:
        return {}
    folder = settings.run_folder(run_id)
    lacking = [name for name in names if not (folder / name).is_file()]
    found: dict[str, Entry] = {}
    for parent in sorted({name.rpartition("/")[0] for name in lacking}):
        source = _run(settings, run_id) / parent if parent else _run(settings, run_id)
        for name, entry in _listed(settings, source).items():
            found[f"{parent}/{name}" if parent else name] = entry
    return {name: found[name] for name in lacking if name in found}


def _listed(settings: Settings, folder: Place) -> dict[str, Entry]:
    """The files of a shared folder, remembered for a moment; so is that they could not be listed."""
    with _listing:
        until, known = _listings.get(str(folder), (0.0, {}))
        if time.monotonic() > until:
            try:
                with _telling(settings):
                    known = files_in(folder)
            except UserError as error:
                known = error
            pause = _SPARED if isinstance(known, UserError) else _REMEMBERED
            _listings[str(folder)] = time.monotonic() + pause, known
    if isinstance(known, UserError):
        raise known
    return known


def _fetch(settings: Settings, source: Place, folder: Path, found: dict[str, Entry]) -> None:
    def fetch(name: str) -> None:
        download(source / name, folder / name, found[name])

    if found:
        with _telling(settings), ThreadPoolExecutor(min(AT_ONCE, len(found))) as pool:
            list(pool.map(fetch, found))


def _copy_new(folder: Path, target: Place) -> None:
    """Copy what is not there yet, has another size, or was written since. The model's description, which names the
    model's hash, comes last."""
    there = files_in(target, below=True)
    new = []
    for name, entry in files_in(folder, below=True).items():
        parts = name.split("/")
        if parts[0] in NEVER or parts[-1].startswith(".") or parts[-1].endswith((".tmp", ".part")):
            continue
        copy = there.get(name)
        if copy is None or copy.size != entry.size or copy.modified < entry.modified - 1:
            new.append(name)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(
            pool.map(
                lambda name: upload(folder / name, target / name),
                (name for name in new if name != "model.json"),
            )
        )
    if "model.json" in new:
        upload(folder / "model.json", target / "model.json")


@contextmanager
def _telling(settings: Settings) -> Iterator[None]:
    """Make the clause of an error a sentence."""
    try:
        yield
    except UserError as error:
        raise UserError(f"Nothing can be had from {settings.artefacts}: {error}.") from None
