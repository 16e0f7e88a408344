"""What the README says is true: its family runs, and the files and commands that it names are there."""

import importlib.util
import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.grid import fields_of
from icdm.problems.family import make_family
from icdm.runs.settings import Settings
from icdm.trajectories.collect import draw_tasks, record

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_family_of_ones_own():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    assert len(code.splitlines()) < 30
    exec(code, {})
    family = make_family("coin", horizon=4)
    tasks = draw_tasks(family, jax.random.key(0), 50)
    shown = record(family, tasks, jnp.arange(50), jax.random.key(1), "oracle", 20, 0.0)
    heads = np.asarray(tasks.problem.initial)[:, 1]
    np.testing.assert_allclose(tasks.oracle.table[:, 0].max((-1, -2)), 4 * np.maximum(heads, 1 - heads), rtol=1e-5)
    assert abs(np.asarray(shown.reward).mean() - np.maximum(heads, 1 - heads).mean()) < 0.05


def test_files_and_modules_that_are_named_exist():
    for path in re.findall(r"(?:experiments|theory)/configs/\w+\.py|docs/\w+\.md|theory/README\.md", README):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", README):
        assert importlib.util.find_spec(module), module
    configs = [runpy.run_path(str(ROOT / f"experiments/configs/{name}.py")) for name in ("base", "paper_sweep")]
    fields = {field for module in configs for field in fields_of(module["get_config"]())}
    for field in set(re.findall(r"--config\.([\w.]+)=", README)) - {"FIELD"}:
        assert field in fields, field


@pytest.mark.parametrize("name", [p.stem for p in sorted((ROOT / "experiments/configs").glob("[!_]*.py"))])
def test_every_config_can_be_run(name):
    config = runpy.run_path(str(ROOT / f"experiments/configs/{name}.py"))["get_config"]()
    if name.startswith("dpt"):
        config.data = "log.parquet"  # what these must be given
    settings = Settings.from_config(config)
    assert settings.layout.size > 0
