"""The flags --config=FILE and --config.field=VALUE, with one line for a mistake in them."""

import ast
import pathlib
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator

from absl import app, flags, logging
from ml_collections import config_flags

from icdm.errors import UserError, one_line_errors, unknown


def define_config() -> None:
    config_flags.DEFINE_config_file("config", None, "config file, for instance experiments/configs/demo.py")


def define_cache() -> None:
    flags.DEFINE_bool("compile_cache", True, "keep compiled programs in the user's cache directory for the next start")


def parse(argv: list[str], program: str, further: Callable[[], Iterable[str]] = tuple) -> list[str]:
    """Parses the command line; a mistake ends the program with one line and exit code 2.

    Args:
      further: the lines that --help prints after the flags.
    """
    logging.set_verbosity(logging.ERROR)  # the program reports mistakes itself
    with one_line_errors(program):
        if any(argument in ("--help", "-help", "-h", "--helpfull", "--helpshort") for argument in argv):
            app.usage(shorthelp=True, writeto_stdout=True)
            print("", *further(), sep="\n")
            sys.exit(0)
        try:
            rest = flags.FLAGS(argv)
            config = flags.FLAGS.config
            if config is not None:
                config.to_dict()  # the file is read here
        except Exception as error:  # what ml_collections raises depends on the mistake
            raise _explained(argv, error) from None
        if config is None:
            raise UserError("name a config: --config=experiments/configs/NAME.py")
        if rest[1:]:
            raise UserError(f"unexpected argument {rest[1]!r}: give flags as --name=value")
        return rest


def configs_and_fields() -> Iterator[str]:
    """The configs of the project, and every field with its default, read from files: nothing slow is imported."""
    from icdm.runs.listing import configs_of

    root = pathlib.Path(__file__).parent
    yield "configs, experiments/configs/NAME.py:"
    yield from (f"  {line}" for line in configs_of(root / "configs"))
    yield "\nfields, --config.FIELD=VALUE, a field of a group as --config.GROUP.FIELD=VALUE:"
    source = (root.parent / "icdm/runs/settings.py").read_text()
    tree = ast.parse(source)
    defaults = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "defaults")
    yield from (line for statement in defaults.body[1:] for line in _lines_of(source, statement))


def _lines_of(source: str, statement: ast.stmt) -> list[str]:
    return source.splitlines()[statement.lineno - 1 : statement.end_lineno]


def _explained(argv: list[str], error: Exception) -> UserError:
    """The mistake behind what the flag libraries raised."""
    file = next((a.split("=", 1)[1] for a in argv if re.match(r"--?config=", a)), None)
    overrides = [match.group(1) for a in argv if (match := re.match(r"--?config\.([^=]+)", a))]
    if file and overrides:
        fields = _fields_of_file(file)
        for override in overrides:
            if fields and override not in fields:
                return unknown("config field", override, fields)
    if isinstance(error, OSError) and file:
        return UserError(f"cannot read the config {file}: {error.strerror or 'no such file'}")
    text = re.sub(r"\s+", " ", str(error)).strip()
    return UserError(text[:300] or f"cannot read the flags {' '.join(argv[1:])}")


def _fields_of_file(file: str) -> dict:
    """The fields of a config file; none if it cannot be read."""
    from experiments.grid import fields_of  # only a mistake needs it

    try:
        return fields_of(runpy.run_path(file)["get_config"]())
    except Exception:
        return {}
