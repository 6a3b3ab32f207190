"""`python -m allreview`: the command line."""

from allreview.cli.app import app

app(prog_name="allreview")
