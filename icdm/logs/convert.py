"""`icdm convert`: converts files of recorded steps into a table, a CSV file or a Minari data set."""

import argparse
import functools
import pathlib
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from icdm.errors import UserError
from icdm.files import whole
from icdm.logs.codings import Features, Words, remarks
from icdm.logs.files import Reading, coded_parts, fit_codings, open_source
from icdm.logs.minari import write_minari
from icdm.logs.table import (
    NOTHING,
    OPTIONAL,
    REQUIRED,
    SCHEMA,
    Report,
    Table,
    as_batch,
    checked,
    is_table,
    open_table,
    write_table,
)


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
    minari: str = "hdf5",
    overwrite: bool = False,
    **reading: Any,
) -> str:
    """Converts one file; returns a line that describes the result, and one for each note on how the file was read.

    Args:
      out: a .parquet file for a table, a .csv file, or a directory for a Minari data set.
      repair, bins, binning, reading: as in `to_table`.
      minari: format of the Minari data set, hdf5 or arrow.
      overwrite: whether a file `out` that exists is replaced.

    Raises:
      UserError: the source has a defect (the message names file, row and column), `out` is the source or exists
        already, or `out` cannot be written.
    """
    source, out = pathlib.Path(source), pathlib.Path(out)
    if out.suffix not in (".parquet", "", ".csv"):
        raise UserError(f"{out}: give a name that ends in .parquet or .csv, or a directory for Minari")
    if out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"{out} is the file that is read: give another OUT")
    if out.exists() and (out.suffix == "" or not overwrite):
        replace = ", or --overwrite" if out.suffix else ""
        raise UserError(f"{out} exists already: choose another OUT{replace}")
    if not out.parent.is_dir():
        raise UserError(f"cannot write {out}: {out.parent} is no directory")
    options = dict(repair=repair, bins=bins, binning=binning, **reading)
    if out.suffix == ".parquet":
        table, report = to_table(source, out, **options)
        observation = table.codings["observation"]
        features = len(observation.columns)
        shown = f"{features} features" if features else f"{table.n_observations} observations"
        said = f"{out}: {table.n_rows} rows, {shown}, {table.n_actions} actions; {report}"
        return "\n".join([said, *report.notes])
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as directory:
        table, report = to_table(source, pathlib.Path(directory) / f"{out.stem}.parquet", **options)
        if out.suffix == ".csv":
            write_csv(out, table)
        else:
            write_minari(out, table, minari, f"icdm/{out.name}-v0")
        return "\n".join([f"{out}: {table.n_rows} rows; {report}", *report.notes])


def to_table(
    source: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    repair: str | None = None,
    bins: int = 16,
    binning: str = "quantile",
    **reading: Any,
) -> tuple[Table, Report]:
    """Writes any readable file as a table; returns it and the report of the repair.

    Args:
      source: a file that `open_source` reads, or a table, whose codings are kept.
      repair: as in `checked`.
      bins, binning: as in `fit_codings`.
      reading: the fields of `Reading`, for a file that is not a table.

    Raises:
      UserError: the source has a defect (the message names file, row and column), or `out` cannot be written.
    """
    source, out, report = pathlib.Path(source), pathlib.Path(out), Report()
    if is_table(source):
        table = open_table(source)
        codings, passes = table.codings, table.coded
    else:
        opened = open_source(source, Reading(**reading))
        codings = fit_codings(opened, bins, binning)
        passes = functools.partial(coded_parts, opened, codings)
        report.notes += opened.notes
    report.notes += remarks(codings)
    return write_table(out, checked(source, passes, repair=repair, report=report), codings), report


def write_csv(out: str | pathlib.Path, table: Table) -> None:
    """Writes the decoded rows of a table.

    Raises:
      UserError: a column holds vectors.
    """
    observation = table.codings["observation"]
    with whole(pathlib.Path(out)) as fresh:
        writer = None
        for rows in table.chunks():
            batch = as_batch(rows, observation)
            columns = {name: batch.column(name) for name in SCHEMA.names}
            coded = ["task_id", "episode_id", "observation", "action", "oracle_action"]
            if observation.columns:
                coded.remove("observation")
                del columns["observation"]
                columns |= _feature_columns(out, observation, rows.features)
            for name in coded:
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


def _feature_columns(out: str | pathlib.Path, coding: Features, value_IF: np.ndarray) -> dict[str, pa.Array]:
    """The features by their names, as they were in the file.

    Raises:
      UserError: a feature is named like another column of the table.
    """
    columns = {}
    for name, words, value_I in zip(coding.names, coding.words, value_IF.T):
        if name in (*REQUIRED, *OPTIONAL):
            raise UserError(f"{out}: a feature has the name of the column {name}: write .parquet, or rename it in IN")
        missing = np.isnan(value_I)
        values = value_I if words is None else Words(words).decode(np.where(missing, 0, value_I).astype(int))
        columns[name] = pa.array(values, mask=missing)
    return columns
