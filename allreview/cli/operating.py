"""`worker` and `check`: keeping allreview going."""

from typing import Annotated

import typer

from allreview.cli import output
from allreview.cli.options import Json


def worker(
    leave_when_idle: Annotated[
        bool,
        typer.Option(
            "--leave-when-idle",
            help="Leave after ALLREVIEW_WORKER_IDLE_MINUTES without work, or at once if a worker is there.",
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            help="Compute with so many threads, as ALLREVIEW_THREADS says; all cores otherwise.",
        ),
    ] = None,
) -> int:
    """Work on what is enqueued, until Ctrl-C or SIGTERM. The app and `train` start one when none is alive."""
    import logging
    import os

    if threads is not None:
        os.environ["ALLREVIEW_THREADS"] = str(threads)
    from allreview.training.worker import work

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("allreview").setLevel(logging.INFO)
    return work(output.settings(), leave_when_idle=leave_when_idle)


def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every image and compare it with what was imported.")
    ] = False,
    json: Json = False,
) -> int:
    """Look whether everything is in order: store, images, models, the log of decisions, splits, disk."""
    from allreview.cli.checking import examine

    with output.progress("Checking") as progress:
        findings = examine(output.settings(), deep=deep, progress=progress)
    if json:
        output.emit(findings.as_dict())
        return 0 if findings.ok else 1
    for title, found in (("Problems", findings.problems), ("Warnings", findings.warnings)):
        if found:
            output.line(f"{title} ({len(found):,}):")
            output.listed([f"{finding.where}: {finding.what}. {finding.advice}" for finding in found])
    counts = ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in findings.counts.items())
    verdict = "Everything is in order" if findings.ok else "Not everything is in order"
    output.line(f"{verdict}: {counts}." if counts else f"{verdict}.")
    return 0 if findings.ok else 1
