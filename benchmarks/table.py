"""All benchmarks, one after another, as the table of the README.

    python -m benchmarks.table [NAME …] [--pictures FOLDER] [--write]

Each is a process of its own and prints one JSON document. `--write` puts its row into the table between the two marks
in README.md as soon as it is measured; the rows of what was not run stay.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# What is run, in the order of the table: a name, and options that keep it within a quarter of an hour.
RUNS: tuple[tuple[str, ...], ...] = (
    ("retrain", "--cells", "4353", "--plain-epochs", "2"),
    ("features",),
    ("saliency",),
    ("importing",),
    ("browse",),
    ("browse", "--postgresql"),
    ("review_latency",),
    ("scale_out",),
)
NAMES = tuple(dict.fromkeys(run[0] for run in RUNS))
WITH_PICTURES = frozenset(NAMES) - {"browse"}
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"
HEAD = "| what | ratio | command |\n|---|---|---|"


def main() -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--pictures", type=Path, help="a folder of real cells, in any layout that is read")
    parser.add_argument("--write", action="store_true", help="put the rows into README.md")
    asked = parser.parse_args()
    for run in RUNS:
        if run[0] not in (asked.names or NAMES):
            continue
        line = row(measured(options(run, asked.pictures)), options(run, "FOLDER" if asked.pictures else None))
        print(line, flush=True)
        if asked.write:
            readme = ROOT / "README.md"
            readme.write_text(with_row(readme.read_text(encoding="utf-8"), line), encoding="utf-8")


def options(run: tuple[str, ...], pictures: Path | str | None) -> list[str]:
    """The name and the options that a run of the list is started with."""
    return [*run, *(["--pictures", str(pictures)] if pictures and run[0] in WITH_PICTURES else [])]


def measured(run: list[str]) -> dict[str, Any]:
    """What one benchmark says of itself: at least `compares`, a sentence, and `ratio`."""
    print(" ".join(run), "…", file=sys.stderr)
    command = [sys.executable, "-m", f"benchmarks.{run[0]}", "--json", *run[1:]]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks.{run[0]} ended with {done.returncode}: why is said above.")
    print(done.stdout, file=sys.stderr)
    return json.loads(done.stdout)


def row(found: dict[str, Any], run: list[str]) -> str:
    """A row of the table: what is compared, how many times it is as quick, and the command to repeat it.

    >>> row({"compares": "A against B", "ratio": 18.64}, ["features", "--pictures", "FOLDER"])
    '| A against B | 18.6 × | `python -m benchmarks.features --pictures FOLDER` |'
    """
    return f"| {found['compares']} | {found['ratio']:.3g} × | `python -m benchmarks.{' '.join(run)}` |"


def with_row(readme: str, line: str) -> str:
    """The text with this row in the table between its marks, in the order of `RUNS`, in place of an earlier one.

    >>> old = "a\\n<!-- benchmarks -->\\n<!-- end of benchmarks -->\\nb"
    >>> both = with_row(with_row(old, "| 1 | `benchmarks.browse` |"), "| 2 | `benchmarks.retrain` |")
    >>> print(with_row(both, "| 3 | `benchmarks.browse --cells 9` |"))
    a
    <!-- benchmarks -->
    | what | ratio | command |
    |---|---|---|
    | 2 | `benchmarks.retrain` |
    | 3 | `benchmarks.browse --cells 9` |
    <!-- end of benchmarks -->
    b
    """
    before, _, rest = readme.partition(BEGIN)
    table, _, after = rest.partition(END)
    if not rest or END not in readme:
        raise SystemExit(f"README.md has no {BEGIN} and {END}.")
    rows = {_place(old): old for old in table.splitlines() if "benchmarks." in old}
    rows[_place(line)] = line
    lines = [HEAD, *(rows[place] for place in sorted(rows))]
    return "\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"])


def _place(line: str) -> tuple[int, bool]:
    """Where a row belongs."""
    name = re.search(r"benchmarks\.(\w+)", line)
    return NAMES.index(name[1]) if name else len(NAMES), "--postgresql" in line


if __name__ == "__main__":
    main()
