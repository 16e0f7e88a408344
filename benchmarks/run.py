"""Measures the speed of the program.

    python -m benchmarks.run [--only NAME ...] [--quick] [--json FILE] [--compare FILE]

Prints a table with the ratio to the reference of each benchmark, and the bound it should keep. --quick takes
less than two minutes; --compare prints the ratio to the numbers of an earlier --json file. Timing never fails:
the exit code is 0 whatever the numbers.
"""

import argparse
import json
import pathlib
import sys

from icdm.errors import UserError, one_line_errors, unknown
from icdm.files import write_json
from icdm.memory import keep_freed_memory


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="run this benchmark (again for more)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there")
    parser.add_argument("--compare", metavar="FILE", help="an earlier --json file")
    arguments = parser.parse_args(argv)
    with one_line_errors("benchmarks.run"):
        earlier = read(arguments.compare) if arguments.compare else {}
        rows = measure(arguments.only, arguments.quick)
        show(rows, earlier)
        if arguments.json:
            from icdm.provenance import provenance  # imports JAX, which --help goes without

            path = pathlib.Path(arguments.json)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"rows": rows, "made_with": provenance()})


def measure(only: list[str], quick: bool) -> list[dict]:
    """The rows of the named benchmarks, or of all.

    Raises:
      UserError: an unknown name.
    """
    from benchmarks.cases import CASES

    for name in only:
        if name not in CASES:
            raise unknown("benchmark", name, CASES)
    rows = []
    for name in only or CASES:
        rows += CASES[name](quick)
    return rows


def show(rows: list[dict], earlier: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    from icdm.provenance import in_words  # imports JAX, which --help goes without

    table = Table(title=in_words(), title_justify="left")
    for column in ("benchmark", "measured", "ratio to reference", "bound", "kept"):
        table.add_column(column, justify="left" if column == "benchmark" else "right")
    if earlier:
        table.add_column("ratio to earlier", justify="right")
    for r in rows:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.3g} x {r['reference_name']}"
        bound = "" if r["required"] is None else f"{r['required']:.3g}"
        kept = {None: "", True: "yes", False: "no"}[r["holds"]]
        cells = [r["name"], f"{r['value']:,.4g} {r['unit']}", ratio, bound, kept]
        if earlier:
            cells.append(f"{r['value'] / earlier[r['name']]:.2f}" if r["name"] in earlier else "")
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def read(path: str) -> dict[str, float]:
    try:
        return {r["name"]: r["value"] for r in json.loads(pathlib.Path(path).read_text())["rows"]}
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path} cannot be read: give a file that --json wrote") from None


if __name__ == "__main__":
    keep_freed_memory()  # as experiments.run does
    main(sys.argv[1:])
