"""The real commands at tiny sizes: results, reports, kills, stops, and mistakes of the user."""

import json
import random
import signal
import time

import numpy as np
import pytest
from commands import run, start, without_extras

from experiments.configs import demo
from icdm.errors import UserError
from icdm.readers.counts_planners import PLANNERS
from icdm.runs.settings import Settings

TINY = [
    "--config=experiments/configs/demo.py",
    "--config.horizon=3",
    "--config.pretrain.steps=30",
    "--config.pretrain.mixture=('energy:horizon=3', 'random_mdp:states=3,actions=2,horizon=2')",
    "--config.pretrain.batch=8",
    "--config.pretrain.checkpoint_every=5",
    "--config.fine_tune.steps=60",
    "--config.fine_tune.batch=8",
    "--config.fine_tune.checkpoint_every=5",
    "--config.fine_tune.log_every=5",
    "--config.model.width=16",
    "--config.model.layers=1",
    "--config.model.heads=2",
    "--config.model.kv_heads=2",
    "--config.evaluation.tasks=20",
    "--config.evaluation.episodes=2",
]
METRICS = {"value", "gap", "regret", "normalized_gap", "failure_rate"}


def wait_for_steps(workdir, phase, steps, process):
    """Until the phase has a checkpoint of at least that step."""
    for _ in range(6000):
        directory = workdir / "checkpoints" / phase
        done = [int(p.name) for p in directory.glob("*") if p.name.isdigit()] if directory.exists() else []
        if (done and max(done) >= steps) or process.poll() is not None:
            return
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of step {steps}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    # The core dependencies are enough.
    done = without_extras("experiments.run", *TINY, f"--workdir={workdir}", "--profile_steps=10,12")
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def policies_of(workdir):
    return json.loads((workdir / "results.json").read_text())["policies"]


def test_a_run_leaves_everything_that_is_promised(finished):
    workdir, printed = finished
    results = json.loads((workdir / "results.json").read_text())
    assert results["family"] == "energy" and results["seeds"] == [0] and len(results["config_hash"]) == 12
    assert set(results["seconds"]) == {"pretrain", "fine_tune", "evaluate"}
    assert results["config"] == json.loads((workdir / "config.json").read_text())
    assert set(results["made_with"]) == {"commit", "versions", "machine"}
    values = np.load(workdir / "values.npz")
    assert values["task/transition"].shape[0] == 20 and "task/reward" not in values  # of this family p is the task
    expected = {"oracle", "random", "copy", "in_context", "fine_tuned", "no_context", "wrong_context"}
    assert expected | {*PLANNERS, "myopic", "posterior_mean_replanned"} == set(results["policies"])
    for metrics in results["policies"].values():
        assert (
            METRICS <= set(metrics) <= METRICS | {"repeats", "planning_share"}
        )  # the random policy is valued without episodes
        for number in metrics.values():
            assert number["ci95"][0] <= number["mean"] + 1e-12 and number["mean"] <= number["ci95"][1] + 1e-12
            assert number["n_tasks"] == 20
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {line["phase"] for line in lines} == {"pretrain", "fine_tune"}
    speed = {"tokens_per_s", "tflops_per_s"}
    assert {"phase", "step", "loss", "grad_norm", "seconds", *speed} == set(lines[0]) - {"mfu"}
    assert [line["step"] for line in lines if line["phase"] == "fine_tune"] == list(range(5, 61, 5))
    html = (workdir / "report.html").read_text()
    assert "http" not in html.replace("http-equiv", "") and "<script" not in html and "data:image/png" in html
    for name in ("learning_curves.png", "learning_curves.pdf", "gaps.png", "gaps.pdf", "config.json"):
        assert (workdir / name).stat().st_size > 0
    assert "fine_tuned" in printed and "normalized gap" in printed


def test_the_steps_that_were_asked_for_are_traced(finished):
    for phase in ("pretrain", "fine_tune"):
        for name in ("perfetto_trace.json.gz", "*.xplane.pb"):
            [file] = (finished[0] / "trace" / phase).rglob(name)
            assert file.stat().st_size > 0
    assert "trace of the steps 10 to 11" in finished[1]


@pytest.mark.slow
def test_the_second_start_finds_what_the_first_has_compiled(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")  # of the tests
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "icdm" / "compiled"
    assert run("experiments.run", *TINY, f"--workdir={tmp_path}/none", "--nocompile_cache").returncode == 0
    assert not kept.exists()
    assert run("experiments.run", *TINY, f"--workdir={tmp_path}/first").returncode == 0
    programs = {path.name for path in kept.glob("*-cache")}
    assert programs
    assert run("experiments.run", *TINY, f"--workdir={tmp_path}/second").returncode == 0
    new = {path.name for path in kept.glob("*-cache")} - programs  # what took a little longer this time
    assert len(new) < len(programs) / 2
    assert policies_of(tmp_path / "first") == policies_of(tmp_path / "second")


@pytest.mark.parametrize("steps", ["10", "12,10", "1,x", "-1,3"])
def test_steps_that_cannot_be_traced(steps, tmp_path):
    done = run("experiments.run", *TINY, f"--workdir={tmp_path}/run", f"--profile_steps={steps}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--profile_steps" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_same_config_and_seed_give_the_same_numbers(finished, tmp_path):
    assert run("experiments.run", *TINY, f"--workdir={tmp_path}").returncode == 0
    assert policies_of(tmp_path) == policies_of(finished[0])


@pytest.mark.slow
def test_kill_at_three_random_moments_changes_nothing(finished, tmp_path):
    reference, _ = finished
    seed = random.randrange(10**6)
    print("seed of the moments:", seed)
    rng = random.Random(seed)
    arguments = [*TINY, f"--workdir={tmp_path}"]
    for phase, steps in [("pretrain", 5), ("fine_tune", 5), ("fine_tune", 30)]:
        process = start("experiments.run", *arguments)
        wait_for_steps(tmp_path, phase, steps, process)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
    done = run("experiments.run", *arguments)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert policies_of(tmp_path) == policies_of(reference)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["phase"] == "fine_tune"]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_kill_at_twenty_random_moments_changes_nothing(finished, tmp_path):
    """From the first imports to the report: every start lives a little longer than the one before it."""
    seed = random.randrange(10**6)
    print("seed of the moments:", seed)
    rng = random.Random(seed)
    arguments = [*TINY, f"--workdir={tmp_path}"]
    began = time.monotonic()
    assert run("experiments.run", *TINY, f"--workdir={tmp_path / 'timed'}").returncode == 0
    once = time.monotonic() - began
    for i in range(20):
        process = start("experiments.run", *arguments)
        time.sleep(rng.uniform(0, once * (i + 1) / 20))
        process.kill()
        output = process.communicate()[0]
        assert "Traceback" not in output and "damaged" not in output
    done = run("experiments.run", *arguments)
    assert done.returncode == 0, done.stderr
    assert policies_of(tmp_path) == policies_of(finished[0])


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(finished, tmp_path):
    arguments = [*TINY, f"--workdir={tmp_path}"]
    process = start("experiments.run", *arguments)
    wait_for_steps(tmp_path, "pretrain", 5, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 143 and "the same command goes on" in output
    assert "Traceback" not in output
    assert run("experiments.run", *arguments).returncode == 0
    assert policies_of(tmp_path) == policies_of(finished[0])


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("family", "enrgy", "did you mean 'energy'"),
        ("test_oracle.tolerance", 0.0, "test_oracle.tolerance 0.0"),
        ("horizon", 0, "horizon 0"),
        ("context.episodes", 0, "show at least 1"),
        ("context.episodes", 500, "the model's limit is 1024"),
        ("context.behavior", "orakle", "did you mean 'oracle'"),
        ("context.behavior", "expert", "has no expert"),
        ("layout", "transitions", "did you mean 'transition'"),
        ("problem.discount", 2.0, "discount"),
        ("pretrain.mixture", ("energy:horizon=x",), "key=number"),
        ("pretrain.batch", 7, "multiple"),
        ("fine_tune.labels", "boltzman", "did you mean 'boltzmann'"),
        ("fine_tune.temperature", 0.0, "temperature"),
        ("evaluation.tasks", 0, "at least 1"),
        ("model.width", 33, "multiple"),
    ],
)
def test_values_that_cannot_be_run_are_refused(field, value, message):
    config = demo.get_config()
    config.update_from_flattened_dict({field: value})
    if field == "family":
        config.problem = {}
    with pytest.raises(UserError, match=message):
        Settings.from_config(config)


@pytest.mark.parametrize(
    "change, message",
    [
        (["--config.fine_tune.stepz=3"], "did you mean 'fine_tune.steps'"),
        (["--config.horizon=five"], "horizon"),
        (["--config.horizon=0"], "horizon 0"),
        (["--config=experiments/configs/nothing.py"], "cannot read the config"),
        (["--wrkdir=x"], "wrkdir"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, change, message):
    done = run("experiments.run", *TINY, f"--workdir={tmp_path / 'run'}", *change)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_sweep_is_no_single_run(tmp_path):
    done = run("experiments.run", "--config=experiments/configs/paper_sweep.py", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2 and "python -m experiments.sweep" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


def test_the_directory_of_another_config_is_refused(finished):
    workdir, _ = finished
    before = (workdir / "results.json").read_text()
    done = run("experiments.run", *TINY, f"--workdir={workdir}", "--config.seed=1")
    assert done.returncode == 2
    assert "belongs to another config: seed (1 now, 0 there)" in done.stderr
    assert (workdir / "results.json").read_text() == before


@pytest.mark.slow
def test_a_loss_that_blows_up_names_the_step(tmp_path):
    done = run(
        "experiments.run",
        *TINY,
        f"--workdir={tmp_path}",
        "--config.fine_tune.labels=advantage",
        "--config.fine_tune.learning_rate=1e30",
        "--config.fine_tune.warmup=0",
    )
    assert done.returncode == 2
    assert "fine_tune: loss" in done.stderr and "at step" in done.stderr and "lower the learning rate" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list((tmp_path / "checkpoints" / "pretrain").glob("30"))


@pytest.mark.slow
def test_a_sweep_pools_seeds_and_draws_the_gap(tmp_path):
    arguments = [*TINY, f"--workdir={tmp_path}", "--sweep", "config.horizon=2,3", "--seeds=2"]
    done = run("experiments.sweep", *arguments, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["sweep"] == {"horizon": [2, 3]} and [e["point"]["horizon"] for e in results["runs"]] == [2, 3]
    for entry in results["runs"]:
        assert entry["seeds"] == [0, 1] and entry["policies"]["fine_tuned"]["gap"]["n_tasks"] == 40
    assert (tmp_path / "gap_against_horizon.png").exists() and (tmp_path / "report.html").exists()
    again = run("experiments.sweep", *arguments)
    assert again.returncode == 0 and "fine_tune" not in again.stdout  # nothing is done twice


HIDDEN = [*TINY[5:], "--config.pretrain.steps=4", "--config.pretrain.batch=8", "--config.fine_tune.pool=4"]
READERS = {"oracle", "random", "in_context", "fine_tuned", "no_context", "wrong_context", "qmdp", "posterior_mean"}


@pytest.mark.slow
def test_a_run_with_a_hidden_state(tmp_path):
    arguments = ["--config=experiments/configs/energy_pomdp.py", "--config.horizon=2", f"--workdir={tmp_path}", *HIDDEN]
    done = run("experiments.run", *arguments)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert READERS | {"copy", "fast_informed", "most_likely_state"} == set(results["policies"])
    assert results["oracle"] == {"method": "point-based"} and results["bracket"]["mean"] >= -0.01
    assert (
        results["policies"]["oracle"]["gap"]["mean"] == 0
        and "Oracle: point-based" in (tmp_path / "report.html").read_text()
    )


@pytest.mark.slow
def test_a_sweep_over_problems_shares_pretraining_and_draws_ambiguity(tmp_path):
    cloud, cautious = (f"energy_apomdp:n_models=2,pessimism={alpha}" for alpha in (0.5, 1.0))
    arguments = [
        "--config=experiments/configs/paper_sweep.py",
        "--config.sweep.horizon=(2,)",
        f"--workdir={tmp_path}",
        *HIDDEN,
        f"--config.sweep.problem=('energy_pomdp:fidelity=0.5', '{cloud}', '{cautious}')",
        "--config.label_oracle.points=16",
        "--config.test_oracle.points=16",
    ]
    done = run("experiments.sweep", *arguments, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pretrain: going on from step 4 of 4") == 2, "the other problems take the first one's"
    hidden, ambiguous, _ = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert set(hidden["policies"]) >= READERS and "worst_value" not in hidden["policies"]["fine_tuned"]
    assert READERS | {"nominal_oracle"} <= set(ambiguous["policies"])
    assert (
        ambiguous["oracle"]["method"] == "recursive alpha-maxmin"
        and ambiguous["oracle"]["estimated_error"]["mean"] >= 0
    )
    assert ambiguous["policies"]["nominal_oracle"]["gap"]["mean"] == 0
    fine_tuned = ambiguous["policies"]["fine_tuned"]
    assert fine_tuned["worst_value"]["mean"] <= fine_tuned["value"]["mean"] <= fine_tuned["best_value"]["mean"]
    for name in ("gap_against_pessimism.png", "worst_gap_against_pessimism.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert cloud in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("change", [["--config.layout=interleaved"], ["--config.fine_tune.lora_rank=2"]])
def test_the_other_ways_to_train(tmp_path, change):
    done = run("experiments.run", *TINY, "--config.from_scratch=True", *change, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "from_scratch" in policies_of(tmp_path)
