"""Arguments and options that several commands share."""

from typing import Annotated

import typer

LARGEST_ID = 2**31 - 1

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
RunId = Annotated[
    int, typer.Argument(metavar="RUN", min=1, max=LARGEST_ID, help="The run's number, as `runs` lists it.")
]
Reviewer = Annotated[
    str, typer.Option("--reviewer", metavar="NAME", help="Who decides. A new name is added.")
]
