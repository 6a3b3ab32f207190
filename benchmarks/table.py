"""All benchmarks, one after another, as the table of the README.

    python -m benchmarks.table [NAME …] [--pictures FOLDER] [--write]

Each is a process of its own and prints one JSON document. `--write` puts the table between the two marks in README.md.
Names choose some of them; the table then has these only, so `--write` wants all.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAMES = ("retrain", "features", "saliency", "importing", "browse", "review_latency", "scale_out")
WITH_PICTURES = frozenset({"retrain", "features", "saliency", "importing", "review_latency", "scale_out"})
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"


def main() -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--pictures", type=Path, help="a folder of real cells, in any layout that is read")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    if asked.write and asked.names:
        parser.error("--write needs all benchmarks: leave the names out")
    table = as_table({name: measured(name, asked.pictures) for name in asked.names or NAMES})
    print(table)
    if asked.write:
        readme = ROOT / "README.md"
        readme.write_text(with_table(readme.read_text(encoding="utf-8"), table), encoding="utf-8")


def measured(name: str, pictures: Path | None) -> dict[str, Any]:
    """What one benchmark says of itself: at least `compares`, a sentence, and `ratio`."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    if pictures is not None and name in WITH_PICTURES:
        command += ["--pictures", str(pictures)]
    print(f"{name} …", file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def as_table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: what is compared, how many times it is as quick, and the command."""
    rows = [
        f"| {one['compares']} | {one['ratio']:.3g} × | `python -m benchmarks.{name}` |"
        for name, one in found.items()
    ]
    return "\n".join(["| what | ratio | command |", "|---|---|---|", *rows])


def with_table(readme: str, table: str) -> str:
    """The text with the table between its marks.

    >>> with_table("a\\n<!-- benchmarks -->\\nold\\n<!-- end of benchmarks -->\\nb", "new")
    'a\\n<!-- benchmarks -->\\nnew\\n<!-- end of benchmarks -->\\nb'
    """
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    if not rest or END not in readme:
        raise SystemExit(f"README.md has no {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    main()
