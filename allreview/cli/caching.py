"""`cache`: the features that were computed once and are kept."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allreview.cli import output
from allreview.cli.options import Json
from allreview.errors import UserError

if TYPE_CHECKING:
    from allreview.training.cache import CachedKey


def cache(
    prune: Annotated[bool, typer.Option("--prune", help="Remove what no run uses.")] = False,
    older_than: Annotated[
        int | None,
        typer.Option(
            "--older-than",
            metavar="DAYS",
            min=0,
            max=36_500,
            help="With --prune: remove instead what was not used for so many days.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="With --prune: remove everything.")] = False,
    json: Json = False,
) -> None:
    """Show or prune the features that were computed once and are kept. What is removed is computed again."""
    import db
    from allreview.store import open_store
    from allreview.training import cache as service

    if (older_than is not None or everything) and not prune:
        raise UserError("--older-than and --all say what to remove: add --prune.")
    if older_than is not None and everything:
        raise UserError("--older-than and --all contradict each other: leave out one of them.")
    settings = output.settings()
    engine = open_store(settings)
    with db.reading(engine) as session:
        keys = service.cached_keys(session, settings)
    removed = None
    if prune:
        age = None if older_than is None else timedelta(days=older_than)
        removed = service.prune(keys, settings, older_than=age, everything=everything)
        gone = {key.stored.path for key in removed.keys}
        keys = [key for key in keys if key.stored.path not in gone]
    shared = [path.stat().st_size for path in service.shared_files(settings)]
    if json:
        output.emit(
            {
                "keys": [_as_dict(key) for key in keys],
                "neighbourhoods": {"files": len(shared), "bytes": sum(shared)},
                "bytes": sum(key.stored.size_bytes for key in keys) + sum(shared),
                "removed": [_as_dict(key) for key in removed.keys] if removed else [],
                "in_use": [_as_dict(key) for key in removed.in_use] if removed else [],
                "freed_bytes": removed.size_bytes if removed else 0,
            }
        )
        return
    if removed:
        output.line(
            f"Removed {output.plural(len(removed.keys), 'key')}; {_size(removed.size_bytes)} are free now."
        )
        if removed.in_use:
            output.line(f"A worker is writing to {output.plural(len(removed.in_use), 'key')}: kept.")
    if keys:
        output.table(
            ("features", "view", "computed by", "cells", "size", "last used", "runs"),
            [
                (
                    key.network,
                    key.view or None,
                    key.engine or None,
                    f"{key.stored.cells:,}",
                    _size(key.stored.size_bytes),
                    f"{key.stored.last_used.astimezone():%Y-%m-%d %H:%M}",
                    ", ".join(map(str, key.runs)) or None,
                )
                for key in keys
            ],
            numbers=("cells", "size"),
        )
    total = sum(key.stored.size_bytes for key in keys)
    output.line(
        f"{output.plural(len(keys), 'key')}, {_size(total)}; neighbours and maps: {_size(sum(shared))}."
    )


def _as_dict(key: "CachedKey") -> dict[str, Any]:
    stored = key.stored
    return {
        "key": stored.path.name,
        "features": key.network,
        "view": key.view,
        "engine": key.engine,
        "depends_on": stored.key,
        "cells": stored.cells,
        "bytes": stored.size_bytes,
        "last_used": stored.last_used,
        "runs": key.runs,
    }


def _size(size_bytes: int) -> str:
    """'0.0 MB', '25.3 MB', '5,120.0 MB'."""
    return f"{size_bytes / 1e6:,.1f} MB"
