"""What the documents say is true: the README's family runs, and the files, commands and fields that they name exist."""

import importlib.util
import json
import pathlib
import re
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_language_model import write_language_model

from experiments.grid import fields_of
from icdm.cli import COMMANDS
from icdm.problems.family import make_family
from icdm.runs.settings import Settings
from icdm.runs.sizes import with_sizes_of_data
from icdm.trajectories.collect import draw_tasks, record

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "theory/README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
PATH = re.compile(r"\b(?:icdm|experiments|theory|docs|benchmarks|tests)/[\w./-]+\.(?:py|md|json|html)\b")
RENDER = runpy.run_path(str(ROOT / "docs/render.py"))
PLACEHOLDER = re.compile(r"\b(?:NAME|ID)\.py")  # the reader's own file


def test_the_family_of_ones_own():
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/families.md").read_text(), re.DOTALL).group(1)
    assert len(code.splitlines()) < 30
    exec(code, {})
    family = make_family("coin", horizon=4)
    tasks = draw_tasks(family, jax.random.key(0), 50)
    recorded = record(family, tasks, jnp.arange(50), jax.random.key(1), "oracle", 20, 0.0)
    heads = np.asarray(tasks.problem.initial)[:, 1]
    np.testing.assert_allclose(tasks.oracle.table[:, 0].max((-1, -2)), 4 * np.maximum(heads, 1 - heads), rtol=1e-5)
    assert abs(np.asarray(recorded.reward).mean() - np.maximum(heads, 1 - heads).mean()) < 0.05


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_and_commands_that_are_named_exist(name):
    text = (ROOT / name).read_text()
    for path in PATH.findall(text):
        assert PLACEHOLDER.search(path) or (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module.rstrip(".")), module
    for command in re.findall(r"(?:\bbin/|`|^ {4})icdm ([a-z]+)", text, re.MULTILINE):
        assert command in COMMANDS, command


@pytest.mark.parametrize("name", DOCUMENTS)
def test_fields_that_are_named_exist(name):
    modules = [runpy.run_path(str(ROOT / f"experiments/configs/{config}.py")) for config in ("base", "paper_sweep")]
    if name.startswith("theory"):
        modules.append(runpy.run_path(str(ROOT / "theory/configs/quick.py")))
    fields = {field for module in modules for field in fields_of(module["get_config"]())}
    for field in set(re.findall(r"--config\.([\w.]+)=", (ROOT / name).read_text())) - {"FIELD"}:
        assert field in fields, field


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tables_are_those_of_the_results(name):
    assert RENDER["rendered"](name) == (ROOT / name).read_text()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_numbers_with_intervals_are_those_of_a_results_file(name):
    assert RENDER["untraced"](name) == []


def test_a_number_that_no_results_file_has_is_found(tmp_path):
    (tmp_path / "page.md").write_text("It has 30.6 % [28.9, 32.3],\nnot 30.6 % [28.9, 32.4] and not -.70 [.65, .74].")
    found = RENDER["untraced"](str(tmp_path / "page.md"))
    assert found == ["30.6 % [28.9, 32.4]", "-.70 [.65, .74]"]


def test_every_table_with_numbers_is_rendered():
    """But for those of theory, whose numbers a test of its own compares with their ledger."""
    for name in set(DOCUMENTS) - {"theory/README.md"}:
        for part in re.split(r"<!-- table: \w+ -->.*?<!-- end -->", (ROOT / name).read_text(), flags=re.S):
            lines = [line for line in part.splitlines() if line.startswith("|")]
            measured = [line for line in lines if RENDER["INTERVAL"].search(line.replace("**", ""))]
            assert not measured, (name, measured[0])


def test_the_api_has_every_module():
    text = (ROOT / "docs/api.md").read_text()
    for path in (ROOT / "icdm").glob("*/*.py"):
        if path.stem != "__init__":
            assert f".. automodule:: icdm.{path.parent.name}.{path.stem}\n" in text, path


@pytest.mark.slow
def test_the_notebook_runs(capsys):
    cells = json.loads((ROOT / "docs/a_run.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    exec(code.replace("runs/demo", str(ROOT / "tests/data/old_run")), {})
    assert "Q* less its mean" in capsys.readouterr().out


@pytest.mark.slow
def test_the_documentation_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ROOT / "docs", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "Boltzmann" in (tmp_path / "api.html").read_text()


def test_every_command_is_in_the_readme():
    assert not [command for command in COMMANDS if f"icdm {command}" not in README]


@pytest.mark.parametrize("name", [p.stem for p in sorted((ROOT / "experiments/configs").glob("[!_]*.py"))])
def test_every_config_can_be_run(name, tmp_path):
    config = runpy.run_path(str(ROOT / f"experiments/configs/{name}.py"))["get_config"]()
    if name.startswith("dpt"):
        config.data = "log.parquet"  # what these must be given
    if name.startswith("language"):
        config.weights = str(tmp_path / "small.gguf")  # in place of what `make language` installs
        write_language_model(tmp_path / "small.gguf")
    if name == "log":
        config.data = str(tmp_path / "log.csv")
        (tmp_path / "log.csv").write_text("episode_id,t,observation,action,reward\n0,0,0,1,1\n0,1,1,0,0\n")
    settings = Settings.from_config(with_sizes_of_data(config))
    assert settings.layout.size > 0
