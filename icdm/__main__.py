"""`python -m icdm COMMAND ...`: the commands, each loaded only when it is called."""

import importlib
import sys

from icdm.errors import one_line_errors, unknown

COMMANDS = {
    "decide": ("icdm.runs.decide", "the next action of a trained run, from the trajectories of the task at hand"),
    "solve": ("icdm.oracles.solve", "value and first action of a .POMDP file, with its bracket"),
}


def main() -> None:
    """Runs the command named first on the command line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    with one_line_errors("icdm"):
        if arguments[0] not in COMMANDS:
            raise unknown("command", arguments[0], COMMANDS)
        module, _ = COMMANDS[arguments[0]]
        importlib.import_module(module).main(arguments[1:])


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in sorted(COMMANDS.items())]
    return "\n".join(["usage: icdm COMMAND ...", "", *lines, "", "icdm COMMAND --help tells more."])


if __name__ == "__main__":
    main()
