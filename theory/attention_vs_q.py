"""Figures of attention against Q for any trained run of a fully observed family.

    python -m theory.attention_vs_q --run runs/random_mdp [--layer 1 --head 2] [--tasks 500]

The run's fine-tuned model reads the contexts of unseen tasks; the query is the first decision after the context. The
value that a head gives an action is the mean return that followed the action in the context, weighted by the head's
attention. The run's directory gets attention_vs_q.html, and attention_vs_q/{scatter,heat_map,context}.{png,pdf}:

    scatter    a head's values against Q*(s, a), and the logits' against it
    heat_map   rank correlation with Q*(s, .) of every layer and head
    context    one context: where the query attends, and the Q-values that it implies

Without --layer or --head, the pictures are of the head that is best on half of the tasks, measured on the other half.
"""

import argparse
import pathlib

from icdm.errors import UserError, one_line_errors

TASKS = 500


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="theory.attention_vs_q", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="work directory of a trained run")
    parser.add_argument("--layer", type=int, help="whose attention to show, from 0")
    parser.add_argument("--head", type=int, help="whose attention to show, from 0")
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"unseen tasks ({TASKS})")
    arguments = parser.parse_args(argv)
    with one_line_errors("theory.attention_vs_q"):
        page = attention_vs_q(arguments.run, arguments.layer, arguments.head, arguments.tasks)
        print(f"{page}  pictures: {page.with_suffix('')}")


def attention_vs_q(directory, layer: int | None = None, head: int | None = None, tasks: int = TASKS) -> pathlib.Path:
    """Writes the page and its pictures into a run's directory; returns the page's path.

    Raises:
      UserError: no trained model there, contexts without episodes, or a layer or head that the model does not have.
    """
    if tasks < 4:
        raise UserError(f"--tasks {tasks}: give at least 4")
    from theory.circuits import trained
    from theory.circuits.attention_figures import pictures, write_page  # heavy imports wait until there is work

    run = trained.load(directory)
    shape = run.settings.model
    for name, given, n in (("layer", layer, shape.layers), ("head", head, shape.heads)):
        if given is not None and not 0 <= given < n:
            raise UserError(f"--{name} {given}: the model of {directory} has {name}s 0 to {n - 1}")
    rows = trained.unseen_rows(run, tasks, seed=0)
    reading = trained.read(run.layout, run.model("fine_tuned"), rows.episodes)
    page = pathlib.Path(directory) / "attention_vs_q.html"
    write_page(page, directory, *pictures(run, rows, reading, layer, head))
    return page


if __name__ == "__main__":
    main()
