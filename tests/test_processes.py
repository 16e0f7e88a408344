"""Runs of several processes: they give the numbers of one, stop together, and end when one of them does."""

import functools
import json
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ROOT, environment, run, start
from test_pipeline import HIDDEN, TINY, wait_for_steps

from experiments.compile import COLLECTIVE, COMPUTATION
from icdm import processes
from icdm.errors import UserError
from icdm.files import locked
from icdm.runs.run import Run

COORDINATOR = "JAX_COORDINATOR_ADDRESS"


INSTRUCTION = re.compile(r"^  (?:ROOT )?%([\w.-]+) = (.*)$", re.MULTILINE)
CALLED = re.compile(r"(?:body|condition|calls|to_apply|(?:true|false)_computation)=%([\w.-]+)")
NAME = re.compile(r"%([\w.-]+)")
LOOPS = """
%body (x: f32[2]) -> f32[2] {
  %x = f32[2] parameter(0)
  ROOT %all-reduce.1 = f32[2] all-reduce(%x), to_apply=%add
}

ENTRY %main (a: f32[2], b: f32[2]) -> (f32[2], f32[2]) {
  %a = f32[2] parameter(0)
  %b = f32[2] parameter(1)
  %fed = f32[2] all-reduce(%a), to_apply=%add
  %loop = f32[2] while(%fed), condition=%ends, body=%body
  %after = f32[2] all-reduce(%loop), to_apply=%add
  %beside = f32[2] all-reduce(%b), to_apply=%add
  ROOT %both = (f32[2], f32[2]) tuple(%after, %beside)
}
"""
PROGRAMS = """
import pathlib, sys
import jax
sys.path.insert(0, "tests")
from test_processes import without_order
from experiments.configs import demo
from icdm import processes
from icdm.runs.programs import programs
from icdm.runs.run import Run
from icdm.runs.settings import as_json, completed
from icdm.sharding import make_mesh

processes._several = True
for layers, fsdp in ((1, False), (9, True)):
    c = demo.get_config()
    c.horizon, c.mesh_fsdp = 3, fsdp
    c.pretrain.batch = c.fine_tune.batch = 8
    c.pretrain.mixture = ("energy:horizon=3", "random_mdp:states=3,actions=2,horizon=2")
    c.model.width, c.model.layers, c.model.heads, c.model.kv_heads = 16, layers, 2, 2
    makers = programs(Run(pathlib.Path(), completed(as_json(c))), make_mesh())
    for name in ("pretrain", "fine_tune", "rollout") if layers == 1 else ("pretrain",):
        text = makers[name]().lowered.compile().as_text()
        assert "all-" in text and not without_order(text), (layers, name, without_order(text))
"""


def without_order(text):
    """Pairs of a loop with collective operations and another operation with some, neither of which needs the other, in
    the text of a compiled program: see `icdm.processes`."""
    computations = dict(COMPUTATION.findall(text))

    @functools.cache
    def talks(line):
        inside = (computations.get(name, "") for name in CALLED.findall(line))
        return bool(COLLECTIVE.search(line)) or any(talks(one) for body in inside for one in body.splitlines())

    found = []
    for body in computations.values():
        needs, talking = {}, {}
        for name, line in INSTRUCTION.findall(body):
            operands = [x for x in NAME.findall(line.split(", metadata=")[0]) if x in needs]
            needs[name] = set(operands).union(*(needs[x] for x in operands))
            if talks(f"= {line}"):
                talking[name] = not COLLECTIVE.search(f"= {line}")
        loops = [name for name, is_loop in talking.items() if is_loop]
        others = [(loop, other) for loop in loops for other in talking if other != loop]
        found += [(loop, other) for loop, other in others if loop not in needs[other] and other not in needs[loop]]
    return found


def free_address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def start_two(*arguments, devices=1):
    """Two processes of one run, each with so many devices."""
    names = {COORDINATOR: free_address(), "JAX_NUM_PROCESSES": "2"}
    return [start("experiments.run", *arguments, devices=devices, **names, JAX_PROCESS_ID=str(i)) for i in range(2)]


def outputs(several):
    return [process.communicate(timeout=300)[0] for process in several]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process."""
    workdir = tmp_path_factory.mktemp("alone")
    assert run("experiments.run", *TINY, f"--workdir={workdir}").returncode == 0
    return workdir


def assert_same_numbers(workdir, other, was_stopped=False):
    """The mean loss of the lines in which a run was stopped is that of fewer steps."""
    for policy, measures in Run.open(other).results()["policies"].items():
        for measure, wanted in measures.items():
            found = Run.open(workdir).results()["policies"][policy][measure]
            np.testing.assert_allclose(found["mean"], wanted["mean"], atol=1e-5, err_msg=f"{policy} {measure}")
            np.testing.assert_allclose(found["ci95"], wanted["ci95"], atol=1e-5, err_msg=f"{policy} {measure}")
    one, two = (
        {(line["phase"], line["step"]): line["loss"] for line in map(json.loads, lines)}
        for lines in ((path / "metrics.jsonl").read_text().splitlines() for path in (workdir, other))
    )
    assert one.keys() == two.keys()
    differing = [place for place in one if not np.isclose(one[place], two[place], rtol=1e-5)]
    assert len(differing) <= was_stopped, differing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "mesh"), [(1, []), (2, ["--config.mesh_model=2"]), (2, ["--config.mesh_fsdp=True"])]
)
def test_two_processes_give_the_numbers_of_one(devices, mesh, alone, tmp_path):
    several = start_two(*TINY, *mesh, f"--workdir={tmp_path}", devices=devices)
    first, second = outputs(several)
    assert [process.returncode for process in several] == [0, 0], first + second
    assert f"2 processes with {2 * devices} devices" in first and "evaluate" in first and "evaluate" not in second
    assert_same_numbers(tmp_path, alone)


@pytest.mark.slow
def test_two_processes_plan_where_states_are_hidden_as_one_does(tmp_path):
    arguments = ["--config=experiments/configs/energy_pomdp.py", "--config.horizon=2", *HIDDEN]
    assert run("experiments.run", *arguments, f"--workdir={tmp_path}/alone").returncode == 0
    several = start_two(*arguments, f"--workdir={tmp_path}/run")
    first, second = outputs(several)
    assert [process.returncode for process in several] == [0, 0], first + second
    assert_same_numbers(tmp_path / "run", tmp_path / "alone")


def test_a_loop_and_a_collective_operation_that_do_not_need_each_other_have_no_order():
    assert without_order(LOOPS) == [("loop", "beside")]


@pytest.mark.slow
def test_the_collective_operations_of_every_program_have_an_order():
    command = [sys.executable, "-c", PROGRAMS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment(devices=2))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_is_killed_the_other_ends_and_the_same_command_goes_on(killed, alone, tmp_path):
    several = start_two(*TINY, f"--workdir={tmp_path}")
    wait_for_steps(tmp_path, "fine_tune", 10, several[killed])
    several[killed].kill()
    began = time.monotonic()
    said = outputs(several)[1 - killed]
    assert time.monotonic() - began < 60
    assert several[1 - killed].returncode == 2 and said.splitlines()[-1].startswith(processes.LOST)
    again = start_two(*TINY, f"--workdir={tmp_path}")
    first, second = outputs(again)
    assert [process.returncode for process in again] == [0, 0], first + second
    assert "going on from step" in first
    assert_same_numbers(tmp_path, alone, was_stopped=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_stops_all_at_the_same_step_and_one_process_goes_on(number, alone, tmp_path):
    several = start_two(*TINY, f"--workdir={tmp_path}")
    wait_for_steps(tmp_path, "fine_tune", 10, several[1])
    several[1].send_signal(number)
    first, second = outputs(several)
    assert [process.returncode for process in several] == [143, 143], first + second
    assert "stopped at step" in first
    resumed = run("experiments.run", *TINY, f"--workdir={tmp_path}")
    assert resumed.returncode == 0 and "going on from step" in resumed.stdout, resumed.stderr
    assert_same_numbers(tmp_path, alone, was_stopped=True)


@pytest.mark.slow
def test_a_mistake_that_one_sees_ends_all(tmp_path):
    with locked(tmp_path):
        several = start_two(*TINY, f"--workdir={tmp_path}")
        first, second = outputs(several)
    assert [process.returncode for process in several] == [2, 2], first + second
    assert "another process is at work" in first and second.splitlines()[-1].startswith(processes.LOST)


@pytest.mark.parametrize(
    ("environ", "told_by"),
    [
        ({}, ""),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, "JAX_COORDINATOR_ADDRESS"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM_NTASKS"),
        ({"SLURM_NTASKS": "4"}, ""),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_HOSTNAMES"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),
    ],
)
def test_the_environment_says_whether_there_are_other_processes(environ, told_by):
    assert processes.asked_for(environ) == told_by


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({COORDINATOR: "localhost:1", "JAX_PROCESS_ID": "0"}, "JAX_NUM_PROCESSES=''"),
        ({COORDINATOR: "localhost:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "from 0 to 1"),
        ({COORDINATOR: "localhost", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "HOST:PORT"),
    ],
)
def test_variables_that_name_no_group(variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message), processes.joined(processes.AUTO, "test"):
        pass


@pytest.mark.parametrize("variables", [{COORDINATOR: "localhost:1"}, {"OMPI_COMM_WORLD_SIZE": "2"}])
def test_a_group_of_which_nothing_is_known_ends_in_one_line(variables, tmp_path):
    process = start("experiments.run", *TINY, f"--workdir={tmp_path}/run", **variables)
    said = outputs([process])[0]
    assert process.returncode == 2 and "cannot be joined" in said and said.count("\n") == 1, said
    assert not (tmp_path / "run").exists()


def test_the_environment_is_not_heeded_when_it_is_off(monkeypatch):
    monkeypatch.setenv(COORDINATOR, "nowhere")
    with processes.joined(processes.OFF, "test"):
        assert processes.is_first()


def join(address, i, seconds):
    """A process that joins a group of two and says so."""
    code = (
        "from icdm import processes\nfrom icdm.errors import one_line_errors\n"
        f"processes.SECONDS_TO_JOIN = {seconds}\n"
        "with one_line_errors('experiments.run'), processes.joined('auto', 'experiments.run'):\n    print('joined')\n"
    )
    names = {COORDINATOR: address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(i)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment() | names
    )


def test_a_coordinator_that_never_answers():
    done = join(free_address(), 1, 1)
    assert done.returncode == 2 and "no coordinator answers" in done.stderr and done.stderr.count("\n") == 1


def test_a_process_that_never_comes():
    done = join(free_address(), 0, 1)
    assert done.returncode == 2 and "have not all come" in done.stderr.splitlines()[-1]


def test_a_port_that_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = join(f"127.0.0.1:{taken.getsockname()[1]}", 0, 1)
    assert done.returncode == 2 and "choose another port" in done.stderr and done.stderr.count("\n") == 1


def test_gpus_that_would_lie_idle_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GPUS", tmp_path)
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    assert processes.gpus_allowed({}) == 4 and processes.gpus_allowed({"CUDA_VISIBLE_DEVICES": "2"}) == 1
    processes.check_no_idle_gpus(allowed=4, used=4)
    with pytest.raises(UserError, match="3 of 4 GPUs"):
        processes.check_no_idle_gpus(allowed=4, used=1)
