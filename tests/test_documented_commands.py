"""Every command of the documents: quick tests read it as the command itself would, a slow one runs the README's."""

import functools
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from commands import ROOT, environment
from test_readme import DOCUMENTS

from experiments.evaluate import changed
from experiments.grid import axes_of, fields_of, typed
from icdm import cli
from icdm.runs.settings import as_json

COMMAND = re.compile(r"^(?: {4}|\| `)((?:\w+=\S+ |srun \S+ \S+ )*)((?:\.venv/bin/)?(?:python|icdm) .*)$")
FLAG = re.compile(r"--(?:\[no\])?([\w-]+)")


def commands_of(document):
    """The commands of a document, continued lines joined; in a table a cell may hold several."""
    text = (ROOT / document).read_text().replace("\\\n", "")
    for line in text.splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`((?:\.venv/bin/)?(?:python|icdm) [^`]*)`", line.split(" | ")[0])
        elif found := COMMAND.match(line):
            yield re.sub(r"\s+#\s.*", "", found[2])


COMMANDS = sorted({(document, command) for document in DOCUMENTS for command in commands_of(document)})


@functools.cache
def flags_of(module):
    """The flags that --help of a module names."""
    command = [sys.executable, "-m", module, "--help"]
    return set(FLAG.findall(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout))


def config_of(words):
    """The config that a command names, with its overrides; a field or value that is none fails."""
    file = next(word.partition("=")[2] for word in words if word.startswith("--config="))
    config = runpy.run_path(str(ROOT / file))["get_config"]()
    fields = fields_of(config)
    for word in words:
        if word.startswith("--config."):
            field, _, value = word.removeprefix("--config.").partition("=")
            assert field in fields, word
            if not isinstance(fields[field], tuple):
                typed(field, fields[field], value)
    return config


def test_there_are_commands():
    assert len(COMMANDS) > 45 and {document for document, _ in COMMANDS} > {"README.md", "docs/logs.md"}


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_a_command_is_one(document, command):
    program, *words = shlex.split(command)
    if program.endswith("icdm"):
        words = [re.sub(r"^\[|\]$|\|.*", "", word) for word in words if word not in ("...", "...]")]
        name, *rest = words
        parser = cli.argparse.ArgumentParser()
        cli.COMMANDS[name][0](parser)
        parser.parse_args(rest)  # exits if it is none
        return
    assert words[0] == "-m"
    module, words = words[1], [word for word in words[2:] if word not in ("...",)]
    named = {word[2:].partition("=")[0] for word in words if word.startswith("--") and not word.startswith("--config.")}
    assert named <= flags_of(module), named - flags_of(module)
    if any(word.startswith("--config=") for word in words):
        config = config_of(words)
        swept = [words[i + 1] for i, word in enumerate(words) if word == "--sweep"]
        swept += [word.partition("=")[2] for word in words if word.startswith("--sweep=")]
        axes_of(config, swept)
    if module == "experiments.evaluate":
        config = runpy.run_path(str(ROOT / "experiments/configs/base.py"))["get_config"]()
        config = as_json(config)
        for change in (word for word in words if re.match(r"[\w.]+=", word)):
            config = changed(config, change)


PARTS = {  # what a long command is cut down to
    "theory.verify": ["--only=linear_q", "--config.linear_q.problems=4"],
    "theory.attention_vs_q": ["--tasks=4"],
    "benchmarks.run": ["--quick", "--only=start_up"],
}
MEANT = {  # what stands for the reader's own
    "FILE.POMDP": str(ROOT / "tests/data/pomdp/cancer.POMDP"),
    "runs/one": "runs/demo",
    "runs/other": "runs/energy",
    "runs/language": "runs/demo",
    "evaluation.tasks=1000": "evaluation.tasks=5",
}
TINY = {
    "pretrain.steps": 4,
    "pretrain.batch": 4,
    "fine_tune.steps": 6,
    "fine_tune.batch": 4,
    "evaluation.tasks": 4,
    "evaluation.episodes": 1,
    "model.width": 16,
    "model.heads": 2,
    "model.kv_heads": 2,
}
HEAD = "episode_id,t,observation,action,reward\n"
LOG = HEAD + "".join(
    f"{i},0,ward,{'wait' if i % 2 else 'treat'},{i % 2}\n{i},1,icu,{'treat' if i % 3 else 'wait'},1\n"
    for i in range(600)
)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_commands_of_the_readme_run(tmp_path):
    """In the order of the page, at tiny sizes, each in a process of its own, from its own directory."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "theory").symlink_to(ROOT / "theory")
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "context.csv").write_text(f"{HEAD}0,0,5,1,0.5\n0,1,4,1,0.4\n")
    (tmp_path / "history.csv").write_text(f"{HEAD}9,0,5,1,0.5\n9,1,5,,\n")
    demo = ".venv/bin/python -m experiments.run --config=experiments/configs/demo.py --workdir=runs/demo"
    for command in (demo, *commands_of("README.md")):
        if "experiments.compile" not in command or importlib.util.find_spec("libtpu"):
            run_tiny(command, tmp_path)
    for document in ("README.md", "docs/tutorial.md"):  # figures of one's own
        [code] = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment() | {"MPLBACKEND": "Agg"}
        )
        (tmp_path / "gaps.png").unlink()
    assert (tmp_path / "runs/demo/evaluations/many/report.html").exists()
    assert (tmp_path / "runs/horizons/report.html").exists() and (tmp_path / "runs/log/report.html").exists()


def run_tiny(command, directory):
    """Runs what a command of the README says, smaller: a tiny model, few steps, few tasks."""
    program, *words = shlex.split(command)
    module = "icdm" if program.endswith("icdm") else words[1]
    if module in ("experiments.run", "experiments.sweep"):
        own = TINY if "log.py" not in command else {k: v for k, v in TINY.items() if not k.startswith("pretrain")}
        words += [f"--config.{field}={value}" for field, value in own.items()]
    words = [MEANT.get(word, word) for word in words] + PARTS.get(module, [])
    words = ["-m", "icdm", *words] if module == "icdm" else words
    done = subprocess.run(
        [sys.executable, *words],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=1500,
        env=environment() | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, (command, done.stderr)
