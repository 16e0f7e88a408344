"""The command `icdm`: the parsers of its subcommands; what they do is imported only when it is asked for."""

import argparse
import importlib
import math
import sys

from icdm import __version__
from icdm.errors import one_line_errors, unknown

SOLVE = """Optimal value at the start belief of a .POMDP or .MDP file, and the first action. Costs are negated rewards:
values are always to be maximised. Without --method: the exact belief tree where it is small enough, else certified
bounds by trials that follow them. A file without observations is an MDP."""

DECIDE = """The next action of a trained run, from the trajectories of the task at hand. CONTEXT holds recorded episodes
of the task (a table, .csv or .parquet); without it a run decides by what it has learned alone. HISTORY holds the
episode that is going on, in the same form: its last row has no action, and is what is observed now. Without a history
an episode begins, on the given observation. Prints the best action, the probability of each action, and their values if
the model carries them. With --model a model of many families decides, on any record whose states and actions it has
names for, and what certainty equivalence would do is printed beside it."""

CONVERT = """Makes a table of recorded steps out of another file, or a Minari data set or CSV file out of a table. IN:
.csv, .parquet, a Minari directory, or a .npz of the Decision-Pretrained Transformer. OUT: .parquet (the table), .csv
(decoded), or a directory (Minari). Defects of IN are refused with file, row and column, unless a repair is asked for;
what a repair drops is counted."""

DESCRIBE = """Says what a file of recorded steps holds: episodes and their lengths, how often each action was taken,
rewards, which state-action pairs were seen, and every kind of defect with its number of rows and the first row."""

LIST = """Names the families of problems with their parameters and sources, the configs with what they ask and take, and
the runs with how far they have come."""

COMPARE = """Prints the fields in which the configs of two finished runs differ, and the normalised gaps of the policies
that both have measured. Where both have met the same tasks the difference, second less first, is paired over them."""

OPE = """What POLICY would earn in an episode, estimated from LOG, recorded episodes of another policy: per-decision
weighted importance sampling, doubly robust, weighted doubly robust and fitted-Q, with bootstrap intervals over
episodes. The behaviour's probabilities come from the column behavior_probability (or pscore), else from the frequencies
of the actions in each observation, which is said. POLICY is the directory of a run, whose model draws its actions;
uniform; behavior; or a .csv or .parquet file of a table with the columns observation, action, probability, one row for
each pair that is possible, or, where observations have several features or the policy remembers, with the columns
episode_id, t, action, probability, one row for each step of LOG and each action that is possible there. An effective
sample size below 30 is refused."""

EXPORT = """Writes what RUN, the directory of a run or a config file, fine-tunes on as supervised examples for other
programs: JSON lines in a form that TRL reads, each decision labelled with the oracle's action. prompt-completion and
messages are one line a decision, tokens one line a row of episodes. A stopped export goes on when it is started again;
OUT.manifest.json says what was written, and icdm describe and icdm convert read OUT back. Or writes the fine-tuned
model of a run."""


def solve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.POMDP")
    parser.add_argument("--horizon", type=int, help="number of decisions")
    parser.add_argument("--infinite", action="store_true", help="discounted infinite horizon instead")
    parser.add_argument("--discount", type=float, help="instead of the file's")
    parser.add_argument("--method", choices=["auto", "tree", "alpha-vectors", "bounds"], default="auto")
    tolerance = "width of the bracket, over max(1, |value|) (%(default)s)"
    parser.add_argument("--tolerance", type=float, default=1e-7, help=tolerance)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds, reading included (%(default)s)")
    pessimism = "weight of the worst model of an ambiguity set"
    parser.add_argument("--pessimism", type=float, metavar="ALPHA", help=pessimism)
    models = "further models of the ambiguity set; FILE is nominal"
    parser.add_argument("--models", nargs="+", default=[], metavar="FILE2", help=models)
    form = "which alpha-maxmin: a policy chosen once, or nature choosing anew at every step (%(default)s)"
    parser.add_argument("--form", choices=["committed", "recursive"], default="committed", help=form)
    policy = "write the policy of an infinite horizon as alpha-vectors, in pomdp-solve's format"
    parser.add_argument("--policy", metavar="FILE.alpha", help=policy)
    evaluate = "value of the policy of such a file instead of the optimal value"
    parser.add_argument("--evaluate", metavar="FILE.alpha", help=evaluate)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def decide(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", metavar="DIR", help="work directory of a trained run")
    model = "a model that needs no training on CONTEXT: tabular, or a directory of icdm export --model"
    which.add_argument("--model", metavar="NAME|DIR", help=model)
    parser.add_argument("--context", metavar="FILE", help="recorded episodes of the task; needed with --model")
    parser.add_argument("--history", metavar="FILE", help="the episode so far, up to what is observed now")
    now = "what is observed now, at the start of an episode; of several features hr=90,map=65,lactate="
    parser.add_argument("--observation", metavar="VALUE", help=now)
    parser.add_argument("--task", help="which task_id of CONTEXT; needed if it holds several")
    horizon = "decisions in an episode, with --model (as many as the longest episode of CONTEXT)"
    parser.add_argument("--horizon", type=int, help=horizon)
    parser.add_argument("--show-prompt", action="store_true", help="print what a language model has read")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--overwrite", action="store_true", help="replace a file OUT that exists")
    repair = "drop episodes with a defect, or cut them before it"
    parser.add_argument("--repair", choices=("drop", "truncate"), help=repair)
    parser.add_argument("--bins", type=int, default=16, help="intervals of a column of real numbers (%(default)s)")
    parser.add_argument("--binning", choices=("quantile", "uniform"), default="quantile")
    parser.add_argument("--minari", choices=("hdf5", "arrow"), default="hdf5", help="format of a Minari OUT")
    reading(parser)


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    reading(parser)


def ope(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="LOG")
    which = "directory of a run, uniform, behavior, or a file of action probabilities"
    parser.add_argument("--policy", required=True, metavar="POLICY", help=which)
    parser.add_argument("--task", help="which task_id of LOG; needed if it holds several")
    parser.add_argument("--discount", type=float, default=1.0, help="of a reward per step (%(default)s)")
    clip = "largest weight of an episode; above it weights are cut, which biases the estimates (none)"
    parser.add_argument("--clip", type=float, default=math.inf, metavar="WEIGHT", help=clip)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    reading(parser)


def reading(parser: argparse.ArgumentParser) -> None:
    """How a file of recorded steps is to be read."""
    column = dict(action="append", default=[], metavar="COLUMN")
    parser.add_argument("--split", default="", help="train, test or eval, of a .npz")
    parser.add_argument("--words", **column, help="its values are words, whatever they look like; may be repeated")
    parser.add_argument("--reals", **column, help="its values are real numbers, to be binned although they are whole")
    parser.add_argument("--sort", action="store_true", help="sort rows by episode and t, which may be a time stamp")
    columns = (
        "which columns of FILE are meant, such as observation=hr,map action=dose episode_id=stay; others are not read"
    )
    parser.add_argument("--columns", nargs="+", default=[], metavar="NAME=COLUMN", help=columns)
    parser.add_argument("--missing-reward", choices=("zero",), help="a step without a reward paid 0")


def list_(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("families", "configs", "runs"), help="(all of them)")
    parser.add_argument("--configs", default="experiments/configs", metavar="DIR", help="(%(default)s)")
    parser.add_argument("--runs", metavar="DIR", help="(runs)")


def compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", metavar="RUN", help="directory of a finished run")
    parser.add_argument("other", metavar="RUN", help="another")
    parser.add_argument("--figure", metavar="FILE", help="draw the gaps into a .png, .pdf or .svg")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


FORMS = ("prompt-completion", "messages", "tokens")


def export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("out", metavar="OUT.jsonl", nargs="?", help="where examples go")
    form = "(%(default)s)"
    parser.add_argument("--format", choices=FORMS, default=FORMS[0], help=form)
    parser.add_argument("--tasks", type=int, help="different training tasks (fine_tune.pool of the config)")
    parser.add_argument("--rows", type=int, help="rows of episodes (as many as fine-tuning reads)")
    parser.add_argument("--text", metavar="FORM", help="paper, terse, words or chat (the config's)")
    parser.add_argument("--seed", type=int, help="(the config's)")
    parser.add_argument("--adapter", metavar="DIR", help="write the adapters, for peft")
    parser.add_argument("--merged", metavar="DIR", help="write the model with its adapters merged, for transformers")
    parser.add_argument("--model", metavar="DIR", help="write a model of many families, for icdm decide --model")


COMMANDS = {  # its parser, its module, one line, more lines
    "compare": (compare, "icdm.runs.compare", "in what two runs differ, task by task", COMPARE),
    "convert": (convert, "icdm.logs.convert", "make a table of recorded steps, or other files of a table", CONVERT),
    "decide": (decide, "icdm.runs.decide", "the next action of a trained run, for the task at hand", DECIDE),
    "describe": (describe, "icdm.logs.describe", "what a file of recorded steps holds", DESCRIBE),
    "export": (export, "icdm.runs.export", "training rows or a trained model, in files of other programs", EXPORT),
    "list": (list_, "icdm.runs.listing", "the families, configs and runs that there are", LIST),
    "ope": (ope, "icdm.runs.ope", "what a policy is worth, from a log of another's episodes", OPE),
    "solve": (solve, "icdm.oracles.solve", "value and first action of a .POMDP file, with its bracket", SOLVE),
}


def main(argv: list[str] | None = None) -> None:
    """Runs the subcommand that the command line names; a mistake ends in one line and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="icdm", description="In-context decision making.")
    parser.add_argument("--version", action="version", version=f"icdm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (add_arguments, _, line, text) in COMMANDS.items():
        add_arguments(commands.add_parser(name, help=line, description=text))
    if not argv:
        parser.print_help()
        return
    with one_line_errors("icdm"):
        if argv[0] not in COMMANDS and not argv[0].startswith("-"):
            raise unknown("command", argv[0], COMMANDS)
    arguments = parser.parse_args(argv)
    with one_line_errors(f"icdm {arguments.command}"):
        importlib.import_module(COMMANDS[arguments.command][1]).main(arguments)
