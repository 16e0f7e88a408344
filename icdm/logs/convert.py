"""`icdm convert`: converts files of recorded steps into a table, a CSV file or a Minari data set."""

import argparse
import pathlib

import pyarrow as pa
import pyarrow.csv

from icdm.errors import UserError
from icdm.files import whole
from icdm.logs.files import coded_parts, fit_codings, open_source
from icdm.logs.minari import write_minari
from icdm.logs.table import NOTHING, Report, Table, as_batch, checked, is_table, open_table, write_table


def main(arguments: argparse.Namespace) -> None:
    """Runs `icdm convert` with the parsed arguments."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "source", "out")}
    print(convert(arguments.source, arguments.out, **options))


def convert(
    source: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    repair: str | None = None,
    bins: int = 16,
    binning: str = "quantile",
    split: str = "",
    minari: str = "hdf5",
) -> str:
    """Converts one file and returns a line that describes the result.

    Args:
      out: a .parquet file for a table, a .csv file, or a directory for a Minari data set.
      repair, bins, binning, split: as in `to_table`.
      minari: format of the Minari data set, hdf5 or arrow.

    Raises:
      UserError: the source has a defect (the message names file, row and column), or `out` cannot be written.
    """
    out = pathlib.Path(out)
    if out.suffix == ".parquet":
        table, report = to_table(source, out, repair=repair, bins=bins, binning=binning, split=split)
        return f"{out}: {table.n_rows} rows, {table.n_observations} observations, {table.n_actions} actions; {report}"
    if out.suffix not in ("", ".csv"):
        raise UserError(f"{out}: give a name that ends in .parquet or .csv, or a directory for Minari")
    between = out.with_name(out.name + ".table.parquet")
    try:
        table, report = to_table(source, between, repair=repair, bins=bins, binning=binning, split=split)
        if out.suffix == ".csv":
            return f"{out}: {write_csv(out, table)} rows; {report}"
        write_minari(out, table, minari, f"icdm/{out.name}-v0")
        return f"{out}: {table.n_rows} rows; {report}"
    finally:
        between.unlink(missing_ok=True)


def to_table(
    source: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    repair: str | None = None,
    bins: int = 16,
    binning: str = "quantile",
    split: str = "",
) -> tuple[Table, Report]:
    """Writes any readable file as a table; returns it and the report of the repair.

    Args:
      source: a file that `open_source` reads, or a table, whose codings are kept.
      repair: as in `checked`.
      bins, binning: as in `fit_codings`.
      split: as in `open_source`.

    Raises:
      UserError: the source has a defect (the message names file, row and column), or `out` cannot be written.
    """
    source, out, report = pathlib.Path(source), pathlib.Path(out), Report()
    if is_table(source):
        table = open_table(source)
        return write_table(out, checked(source, table.coded(), repair=repair, report=report), table.codings), report
    opened = open_source(source, split)
    codings = fit_codings(opened, bins, binning)
    chunks = checked(source, coded_parts(opened, codings), repair=repair, report=report)
    return write_table(out, chunks, codings), report


def write_csv(out: str | pathlib.Path, table: Table) -> int:
    """Writes the decoded rows of a table; returns their number.

    Raises:
      UserError: a column holds vectors.
    """
    with whole(pathlib.Path(out)) as fresh:
        writer = None
        for rows in table.chunks():
            batch = as_batch(rows)
            columns = {name: batch.column(name) for name in batch.schema.names}
            for name in ("task_id", "episode_id", "observation", "action", "oracle_action"):
                codes = getattr(rows, name)
                coding = table.codings["action" if name == "oracle_action" else name]
                values = coding.decode([max(code, 0) for code in codes])
                if values.ndim > 1:
                    raise UserError(f"{out}: column {name} holds vectors: write .parquet or Minari instead")
                columns[name] = pa.array(values, mask=codes == NOTHING)
            batch = pa.RecordBatch.from_pydict(columns)
            writer = writer or pa.csv.CSVWriter(fresh, batch.schema)
            writer.write_batch(batch)
        writer.close()
    return table.n_rows
