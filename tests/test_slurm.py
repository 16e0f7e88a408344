"""A sweep as jobs of a cluster: the script, its tasks, and the report of what has finished."""

import shutil
import subprocess
import sys
import time

import pytest
from commands import ROOT, environment, run
from test_pipeline import TINY

from experiments.slurm import check_script, without_own, write_scripts
from icdm.errors import UserError

SWEEP = [*TINY, "--config.pretrain.checkpoint_every=30", "--sweep", "config.fine_tune.steps=20,40,60", "--seeds=2"]
FAILS = "fine_tune.steps=60,seed=1"


def slurm_answers():
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo"], capture_output=True).returncode == 0


def test_flags_of_the_script_are_left_out_of_its_command():
    given = ["--config=x.py", "--sbatch=a.sh", "--time", "1:00", "--seeds", "2", "--gpus=1", "-parallel=3"]
    assert without_own(given) == ["--config=x.py", "--seeds", "2"]


def written(tmp_path):
    """The arguments of a sweep of two runs, and the script of its jobs; nothing is submitted."""
    script = tmp_path / "runs.sh"
    arguments = [*TINY[:-2], "--config.evaluation.tasks=4", "--config.evaluation.episodes=1"]
    arguments += ["--sweep", "config.fine_tune.steps=2,4", f"--workdir={tmp_path / 'sweep'}"]
    done = run("experiments.sweep", *arguments, f"--sbatch={script}", "--partition=all", "--parallel=1", "--gpus=2")
    assert done.returncode == 0, done.stderr
    assert "--dependency=afterok:$pretrained" in done.stdout
    return arguments, script


def test_the_script_of_a_sweep(tmp_path):
    arguments, script = written(tmp_path)
    for option in ("--array=0-1%1", "--requeue", "--open-mode=append", "--signal=B:USR1@120", "--gpus=2"):
        assert f"#SBATCH {option}\n" in script.read_text()
    nothing = run("experiments.sweep", *arguments, "--collect")
    assert nothing.returncode == 2 and "0 fine_tune.steps=2,seed=0: not started" in nothing.stdout


@pytest.mark.slow
def test_the_tasks_of_a_script(tmp_path):
    """Run as Slurm would run them."""
    arguments, script = written(tmp_path)
    for file, number in ((tmp_path / "runs.pretrain.sh", "0"), (script, "1")):
        env = environment() | {"SLURM_ARRAY_TASK_ID": number}
        done = subprocess.run(["bash", file], env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert "pretrain: going on from step 30 of 30" in done.stdout  # it was done before
    collected = run("experiments.sweep", *arguments, "--collect")
    assert collected.returncode == 0 and "1 of 2 runs have finished" in collected.stdout, collected.stderr
    assert (tmp_path / "sweep" / "report.html").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--task=9"], "--task=9: there are 2"),
        (["--pretrain=-1"], "--pretrain=-1"),
        (["--sbatch=x/y/runs.sh"], "x/y/runs.sh: there is no such folder"),
        (["--sbatch=runs.sh", "--collect"], "--sbatch and --collect: give one"),
        (["--sweep=config.horizon=3,3"], "3 is there twice"),
    ],
)
def test_what_cannot_be_queued(flag, message, tmp_path):
    arguments = [*TINY, "--sweep", "config.fine_tune.steps=2,4", f"--workdir={tmp_path}/sweep"]
    found = run("experiments.sweep", *arguments, *flag)
    assert found.returncode == 2 and found.stderr.count("\n") == 1 and message in found.stderr, found.stderr


def test_a_script_replaces_scripts_alone(tmp_path):
    nothing, script = dict(time=None, partition=None), tmp_path / "runs.sh"
    check_script(script, nothing | {"time": "1-12:00:00", "partition": "a,b"})
    write_scripts(script, tmp_path, ["x"], 2, 1, 0, {})
    check_script(script, nothing)
    for bad in ({"time": "soon"}, {"partition": "a b"}):
        with pytest.raises(UserError, match=f"--{next(iter(bad))}="):
            check_script(script, nothing | bad)
    (tmp_path / "runs.pretrain.sh").write_text("task_id,episode_id\n")
    for file in (script, tmp_path / "runs.pretrain.sh", tmp_path):
        with pytest.raises(UserError, match="exists and is no script of a sweep"):
            check_script(file, nothing)


@pytest.mark.slow
@pytest.mark.skipif(not slurm_answers(), reason="no Slurm answers here (sinfo)")
def test_six_runs_in_a_real_queue(tmp_path):
    """One is signalled as before its time limit and comes back, one fails, and the report says so."""
    script, directory = tmp_path / "runs.sh", tmp_path / "sweep"
    arguments = [*SWEEP, f"--workdir={directory}"]
    assert run("experiments.sweep", *arguments, f"--sbatch={script}", "--parallel=2").returncode == 0
    (directory / FAILS).mkdir()
    (directory / FAILS / "config.json").write_text('{"family": "bandit"}')

    def submit(file, *options):
        command = ["sbatch", "--parsable", *options, str(file)]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.strip()

    before = submit(tmp_path / "runs.pretrain.sh")
    job = submit(script, f"--dependency=afterok:{before}")
    log = directory / "logs" / "task-0.log"
    deadline = time.monotonic() + 900
    while subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True).stdout.strip():
        assert time.monotonic() < deadline, "the queue does not empty"
        said = log.read_text() if log.exists() else ""
        if "fine_tune" in said and "stopped" not in said:  # Slurm may answer that a job cannot be signalled just now
            subprocess.run(["scancel", "--signal=USR1", "--batch", f"{job}_0"])
        time.sleep(0.5)
    collected = run("experiments.sweep", *arguments, "--collect")
    assert collected.returncode == 0 and "5 of 6 runs have finished" in collected.stdout, collected.stdout
    assert f"{FAILS}: not finished: experiments.sweep: " in collected.stdout
    assert "belongs to another config" in collected.stdout
    assert "stopped" in log.read_text() and "DUE TO JOB REQUEUE" in log.read_text()
    assert "pretrain: going on from step 30 of 30" in log.read_text()  # it was done once for three runs


def test_the_signals_of_a_cluster_ask_a_run_to_stop():
    code = """
import os, signal
from icdm.runs.monitor import StopRequest
stop = StopRequest()
os.kill(os.getpid(), signal.SIGUSR1)
assert stop()
"""
    assert subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not slurm_answers(), reason="no Slurm answers here (sinfo)")
def test_two_tasks_of_a_job_step_are_one_run(tmp_path):
    command = ["srun", "--ntasks=2", sys.executable, "-m", "experiments.run", *TINY, f"--workdir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "2 processes with 2 devices in all, as SLURM_NTASKS says" in done.stdout
    assert done.stdout.count("results: ") == 1 and (tmp_path / "results.json").exists()
