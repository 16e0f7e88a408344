"""Mistakes of a user: one line that names the thing and the remedy."""

import contextlib
import difflib
import os
import sys
from collections.abc import Iterable

EXTRAS = {
    "grain": "data",
    "pyarrow": "data",
    "h5py": "data",
    "tokenizers": "language",
    "gguf": "language",
    "tensorboardX": "tensorboard",
}  # which extra brings a package
STOPPED = 143  # exit code


class UserError(Exception):
    """What the user gave cannot be used; the message says what and what to do instead."""


class TooLarge(UserError):
    """A method refuses a problem because of its size.

    Attributes:
      size: what the method would need.
      limit: the most that it accepts.
      what: what `size` and `limit` count.
    """

    def __init__(self, size: int, limit: int, what: str):
        super().__init__(f"too large: {size:,} {what}, the limit is {limit:,}")
        self.size, self.limit, self.what = size, limit, what


class Stopped(Exception):
    """Long work was asked to stop, and saved before it did; the same command goes on from there."""


class OutOfTime(UserError):
    """A method has not ended before its deadline."""

    def __init__(self, message: str = "not solved within --time-limit"):
        super().__init__(message)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that is not among the `known` ones, naming the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = f"(known: {', '.join(known)})" if len(known) <= 20 or not near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}{listed}".rstrip())


@contextlib.contextmanager
def one_line_errors(program: str):
    """Turns a UserError inside the block, a file that cannot be used, or an extra that is not installed into one line
    and exit code 2, an interrupt into one line and 130, and work that was stopped into one line and the exit code of a
    process ended by SIGTERM. The program ends quietly if nobody reads its output."""
    try:
        yield
    except Stopped as stopped:
        print(f"{stopped}: the same command goes on from there")
        sys.exit(STOPPED)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(
            f"{program}: the package {error.name} is missing: pip install 'icdm[{EXTRAS[error.name]}]'", file=sys.stderr
        )
        sys.exit(2)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes into it once more
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{program}: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
