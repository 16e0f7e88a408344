"""A sweep as an array of jobs in a Slurm cluster's queue; nothing is submitted from here."""

import pathlib
import re
import shlex
from collections.abc import Sequence

from icdm.errors import UserError
from icdm.files import write_text

OWN = ("sbatch", "partition", "time", "gpus", "parallel")  # flags that say how the script is written
TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}")
NAMES = re.compile(r"[^\s,]+(,[^\s,]+)*")
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}%{parallel}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --chdir={here}
#SBATCH --output={logs}/{kind}-%a.log
{resources}
# Two minutes before the time limit Slurm sends USR1: the run saves, and goes on when its turn comes again.
again=
trap 'again=yes; kill -USR1 "$run" 2>/dev/null' USR1
trap 'kill -TERM "$run" 2>/dev/null' TERM
{command} --{kind}="$SLURM_ARRAY_TASK_ID" &
run=$!
wait "$run"
code=$?
while kill -0 "$run" 2>/dev/null; do  # a signal has ended the waiting, and not the run
  wait "$run"
  code=$?
done
if [ -n "$again" ] && [ "$code" -eq 143 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
"""


def check_script(path: pathlib.Path, resources: dict[str, str]) -> None:
    """Raises UserError for options that sbatch cannot read, and if there is something of the script's name, or its
    pretraining's, that is no script of a sweep."""
    if resources["time"] and not TIME.fullmatch(resources["time"]):
        raise UserError(f"--time={resources['time']}: give minutes, H:MM:SS or D-HH:MM:SS, such as 30 or 2:00:00")
    if resources["partition"] and not NAMES.fullmatch(resources["partition"]):
        raise UserError(f"--partition={resources['partition']!r}: give a partition, or several with commas between")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--sbatch={path}: there is no such folder: make it first")
    for file in (path, _before(path)):
        if file.exists() and not (file.is_file() and file.read_bytes().startswith(SCRIPT.partition("{")[0].encode())):
            raise UserError(f"--sbatch={path}: {file} exists and is no script of a sweep: give another name")


def write_scripts(
    path: pathlib.Path,
    workdir: pathlib.Path,
    command: Sequence[str],
    n_runs: int,
    n_pretrained: int,
    parallel: int,
    resources: dict[str, str],
) -> list[str]:
    """Writes the script of the runs and, if runs share pretraining, one of the pretraining before it.

    Args:
      command: of the sweep, without the flags of this script.
      parallel: how many runs are at work at a time; 0 for all.
      resources: options of sbatch with their values; those without a value are left out.

    Returns:
      the commands that submit them.
    """
    options = "".join(f"#SBATCH --{name}={value}\n" for name, value in resources.items() if value)
    logs = logs_of(workdir)
    logs.mkdir(parents=True, exist_ok=True)

    def write(file: pathlib.Path, kind: str, n: int) -> None:
        text = SCRIPT.format(
            name=f"{workdir.name}-{kind}",
            last=n - 1,
            parallel=parallel or n,
            here=pathlib.Path.cwd(),
            logs=logs,
            kind=kind,
            resources=options,
            command=shlex.join(command),
        )
        write_text(file, text)

    write(path, "task", n_runs)
    if not n_pretrained:
        return [f"sbatch {path}"]
    before = _before(path)
    write(before, "pretrain", n_pretrained)
    return [f"pretrained=$(sbatch --parsable {before})", f"sbatch --dependency=afterok:$pretrained {path}"]


def _before(path: pathlib.Path) -> pathlib.Path:
    """The script of the pretraining before that of the runs."""
    return path.with_name(f"{path.stem}.pretrain{path.suffix}")


def logs_of(workdir: pathlib.Path) -> pathlib.Path:
    """The directory of what jobs print: task-I.log and pretrain-I.log."""
    return workdir.absolute() / "logs"


def without_own(arguments: Sequence[str]) -> list[str]:
    """The arguments of the command line but for the flags of the script, in either form (--time=1:00, --time 1:00)."""
    kept, skipping = [], False
    for argument in arguments:
        if skipping:
            skipping = False
            continue
        name, equals, _ = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name in OWN:
            skipping = not equals
        else:
            kept.append(argument)
    return kept
