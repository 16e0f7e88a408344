"""A page of attention against Q for any trained run: what its heads read, and what moves its decisions.

    python -m theory.attention_vs_q --run runs/random_mdp [--layer 1 --head 2] [--tasks 200]

The run's fine-tuned model reads the contexts of unseen tasks. The value that a head gives an action is the mean return
that followed the action in the context, weighted by the head's attention. The run's directory gets attention_vs_q.html,
in which a person picks a context, a decision, a layer and a head, and attention_vs_q/NAME.{png,pdf}:

    heat_map   rank correlation with Q*(s, .) of every layer and head
    scatter    a head's values, the logits' and the planner's against Q*(s, a)
    influence  what one replaced reward of the context does to the logits, against the exact posterior
    context    one context: where the query attends, and the Q-values that it implies

Where states are hidden, Q is that of beliefs, and observations are replaced in the place of rewards. Without --layer or
--head, the pictures are of the head that is best on half of the tasks, measured on the other half.
"""

import argparse
import pathlib

from icdm.errors import UserError, one_line_errors

TASKS = 200


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="theory.attention_vs_q", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="work directory of a trained run")
    parser.add_argument("--layer", type=int, help="whose attention to show first, from 0")
    parser.add_argument("--head", type=int, help="whose attention to show first, from 0")
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"unseen tasks ({TASKS})")
    arguments = parser.parse_args(argv)
    with one_line_errors("theory.attention_vs_q"):
        page = attention_vs_q(arguments.run, arguments.layer, arguments.head, arguments.tasks)
        print(f"{page}  pictures: {page.with_suffix('')}")


def attention_vs_q(directory, layer: int | None = None, head: int | None = None, tasks: int = TASKS) -> pathlib.Path:
    """Writes the page and its pictures into a run's directory; returns the page's path.

    Raises:
      UserError: no trained model there, contexts without episodes, a layer or head that the model does not have, more
        tasks than memory holds, or a layout that does not show what is replaced.
    """
    if tasks < 4:
        raise UserError(f"--tasks {tasks}: give at least 4")
    from icdm.memory import check_fits  # heavy imports wait until there is work
    from icdm.runs.sizes import problem_size
    from theory.circuits import trained
    from theory.circuits.attention_page import write

    run = trained.load(directory)
    shape = run.settings.model
    for name, given, n in (("layer", layer, shape.layers), ("head", head, shape.heads)):
        if given is not None and not 0 <= given < n:
            raise UserError(f"--{name} {given}: the model of {directory} has {name}s 0 to {n - 1}")
    check_fits(f"--tasks {tasks}", tasks * problem_size(run.family), "lower it")
    return write(run, layer, head, tasks)


if __name__ == "__main__":
    main()
