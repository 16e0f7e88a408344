"""The flags --config=FILE and --config.field=VALUE, with one line for a mistake in them."""

import re
import sys

from absl import app, flags
from ml_collections import config_flags

from icdm.errors import UserError, one_line_errors, unknown


def define_config() -> None:
    config_flags.DEFINE_config_file("config", None, "config file, for instance experiments/configs/demo.py")


def parse(argv: list[str], program: str) -> list[str]:
    """Parses the command line; a mistake ends the program with one line and exit code 2."""
    with one_line_errors(program):
        if any(argument in ("--help", "-help", "-h", "--helpfull", "--helpshort") for argument in argv):
            return app.parse_flags_with_usage(argv)
        try:
            rest = flags.FLAGS(argv)
        except Exception as error:  # what ml_collections raises depends on the mistake
            raise _explained(argv, error) from None
        if flags.FLAGS.config is None:
            raise UserError("name a config: --config=experiments/configs/NAME.py")
        if rest[1:]:
            raise UserError(f"unexpected argument {rest[1]!r}: give flags as --name=value")
        return rest


def _explained(argv, error: Exception) -> UserError:
    """The mistake behind what the flag libraries raised."""
    file = next((a.split("=", 1)[1] for a in argv if re.match(r"--?config=", a)), None)
    overrides = [match.group(1) for a in argv if (match := re.match(r"--?config\.([^=]+)", a))]
    if file and overrides:
        fields = _fields(file)
        for override in overrides:
            if fields and override not in fields:
                return unknown("config field", override, fields)
    text = re.sub(r"\s+", " ", str(error)).strip()
    return UserError(text[:300] or f"cannot read the flags {' '.join(argv[1:])}")


def _fields(file: str) -> list[str]:
    """All fields of a config file as dotted names; none if the file cannot be read."""
    try:
        holder = flags.FlagValues()
        config_flags.DEFINE_config_file("config", file, flag_values=holder)
        holder([sys.argv[0]])
        return [name for name, _ in _walk(holder.config)]
    except Exception:
        return []


def _walk(config, prefix=""):
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from _walk(value, f"{prefix}{name}.")
        yield prefix + name, value
