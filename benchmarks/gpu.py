"""Everything that is to be known on a GPU: is it right there, and how fast.

    python -m benchmarks.gpu [--only PART ...] [--json FILE]

The parts run one after another, each in a process of its own with a time limit, some fourteen minutes together.
What is found is written after each part, by default under benchmarks/results, in a file with the name of the GPU. A
part that fails says so in its row, and the others go on.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.cases import row
from benchmarks.run import show
from icdm.errors import UserError, one_line_errors, unknown
from icdm.files import write_json

SHAPES = {"100 M": dict(width=768, layers=14, heads=6), "350 M": dict(width=1024, layers=28, heads=8)}
LENGTHS = (1024, 2048)
TOKENS = 32_768  # of a step
VOCABULARY = 1024
# Whether numbers are right: products in full precision, and no time spent on the choice of the fastest kernels.
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "XLA_FLAGS": "--xla_gpu_autotune_level=0"}


def large():
    """Training of large models: tokens/s, their share of the peak and of a matrix product."""
    import jax
    import jax.numpy as jnp

    from benchmarks.jax_gpt import config_of, training_step
    from icdm.chips import chip_of
    from icdm.models.flops import training_flops

    chip = chip_of(jax.devices()[0].device_kind)
    size = 8192
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    reached = 2 * size**3 * throughput(lambda: product(matrix))
    yield row("matrix product of 8,192, bfloat16", reached / 1e12, "TFLOP/s")
    for name, shape in SHAPES.items():
        for length in LENGTHS:
            began = time.perf_counter()
            step = training_step(VOCABULARY, length, **shape, batch=TOKENS // length, dtype="bfloat16")
            float(step())
            compiling = time.perf_counter() - began
            rate = TOKENS * throughput(step)
            flops = rate * training_flops(config_of(length, **shape, dtype="bfloat16"), length, VOCABULARY)
            title = f"{name}, length {length:,}"
            yield row(f"{title}: training", rate, "tokens/s")
            if chip:
                aim = {"100 M": 0.30, "350 M": 0.40}[name]
                yield row(f"{title}: MFU", flops / chip.flops, "of the peak", required=aim, at_most=False)
            yield row(f"{title}: share of a matrix product", flops / reached, "")
            yield row(f"{title}: first step with compilation", compiling, "s")


def torch():
    """The same shapes in PyTorch: scaled_dot_product_attention, with and without torch.compile."""
    try:
        from benchmarks.torch_gpt import training_step
    except ImportError:
        print("torch: left out, PyTorch is not installed")
        return
    for name, shape in SHAPES.items():
        for length in LENGTHS:
            for kind in ("compiled",) if length > LENGTHS[0] else ("compiled", "eager"):
                step = training_step(VOCABULARY, length, **shape, batch=TOKENS // length, compiled=kind == "compiled")
                rate = TOKENS * throughput(step)
                yield row(f"{name}, length {length:,}: training in PyTorch, {kind}", rate, "tokens/s")


def language():
    """Adapters of rank 16 beside a model of SmolLM2's shape, 32 rows of 512 tokens, 32 of them decisions."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import nnx

    from icdm.learning.train import TrainConfig, fresh_state, make_update
    from icdm.models.transformer import ModelConfig, Transformer
    from icdm.trajectories.layouts.vocabulary import Tokens

    rows, length, every, vocabulary, training = 32, 512, 16, 49_152, TrainConfig(lora_rank=16)
    config = ModelConfig(
        width=576, layers=30, heads=9, kv_heads=3, hidden=1536, tied_embedding=True, rotary_base=1e5, dtype="bfloat16"
    )
    drawn = Transformer(config, vocabulary, nnx.Rngs(0), numbers=0)
    model = jax.tree.map(lambda w: w.astype(jnp.bfloat16), drawn)
    id_BL = jax.random.randint(jax.random.key(1), (rows, length), 0, vocabulary)
    tokens = Tokens(id_BL[..., None], jnp.zeros((rows, length, 0)), jnp.ones((rows, length), bool))

    def loss(model, tokens, key):
        logits = model.logits(model(tokens).hidden[:, ::every], np.arange(3))
        return optax.softmax_cross_entropy_with_integer_labels(logits, id_BL[:, ::every] % 3).mean(), id_BL.size

    update = make_update(loss, training.optimizer(), training.lora)
    held = [fresh_state(model, training, jax.random.key(0))]

    def step():
        held[0], numbers = update(held[0], model, tokens)
        return numbers[0]

    yield row("adapters of a language model of 135 M weights", rows * length * throughput(step), "tokens/s")


def decisions():
    """The model of the package in 1,024 problems side by side, and one decision after another."""
    import jax
    import jax.numpy as jnp

    from benchmarks.cases import decision
    from icdm.models.policy import TransformerPolicy
    from icdm.problems.family import make_family
    from icdm.runs.decider import Decider
    from icdm.trajectories.collect import ContextConfig, draw_tasks, record_with_context
    from icdm.trajectories.rollout import rollout

    rows, horizon = 1024, 15
    family = make_family("random_mdp", states=10, actions=4, horizon=horizon, concentration=0.05)
    run = Decider.pretrained("tabular", states=10, actions=4, horizon=horizon).run
    tasks, row_B = draw_tasks(family, jax.random.key(0), rows), jnp.arange(rows)
    recorded = record_with_context(
        family, tasks, row_B, jax.random.key(1), ContextConfig(episodes=20, behavior="uniform"), "uniform"
    )
    context = jax.tree.map(lambda x: x[:, :-1], recorded)
    policy = TransformerPolicy(run.model("fine_tuned"), context, run.layout)
    play = jax.jit(lambda policy, key: rollout(tasks.problem, row_B, policy, key).reward.sum())
    rate = rows * horizon * throughput(lambda: play(policy, jax.random.key(2)), least=3)
    yield row(f"decisions, {rows:,} problems side by side, contexts of 300 steps read", rate, "decisions/s")
    yield from decision(quick=False)


def demo():
    """The demo here and on the CPU: what does not learn is the same, and training begins the same."""
    with tempfile.TemporaryDirectory() as directory:
        sides = {side: pathlib.Path(directory) / side for side in ("cuda", "cpu")}
        command = [sys.executable, "-m", "experiments.run", "--config=experiments/configs/demo.py"]
        short = ["--config.pretrain.log_every=1", "--config.evaluation.tasks=200", "--config.model.dtype=float32"]
        running = [
            subprocess.Popen(
                [*command, *short, f"--workdir={path}"],
                env=os.environ | EXACT | {"JAX_PLATFORMS": side},
                stdout=subprocess.DEVNULL,
            )
            for side, path in sides.items()
        ]
        if any(process.wait() for process in running):
            raise UserError("the demo failed")
        results = {side: json.loads((path / "results.json").read_text()) for side, path in sides.items()}
        losses = {
            side: [json.loads(line)["loss"] for line in (path / "metrics.jsonl").read_text().splitlines()[:20]]
            for side, path in sides.items()
        }
    learned = ("in_context", "fine_tuned", "no_context", "wrong_context", "from_scratch")

    def furthest(policies):
        """The largest difference in mean value."""
        both = [[results[side]["policies"][name]["value"]["mean"] for side in sides] for name in policies]
        return max(abs(a - b) for a, b in both)

    names = results["cpu"]["policies"]
    fixed = furthest([name for name in names if name not in learned])
    yield row(
        "demo, GPU against CPU: values of policies that do not learn, largest difference", fixed, "", required=1e-3
    )
    yield row(
        "demo, GPU against CPU: loss of the first 20 steps, largest relative difference",
        max(abs(a - b) / abs(b) for a, b in zip(losses["cuda"], losses["cpu"])),
        "",
        required=1e-3,
    )
    tuned = furthest(["fine_tuned"])
    yield row("demo, GPU against CPU: value of the fine-tuned model, difference", tuned, "", required=0.02)


def random_mdp():
    """The config random_mdp from its first step to its report."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "experiments.run", "--config=experiments/configs/random_mdp.py"]
        began = time.perf_counter()
        subprocess.run([*command, f"--workdir={directory}/run"], check=True, stdout=subprocess.DEVNULL)
        taken = time.perf_counter() - began
        results = json.loads(pathlib.Path(directory, "run", "results.json").read_text())
    yield row("random_mdp, whole", taken, "s")
    for phase, seconds in results["seconds"].items():
        yield row(f"random_mdp, {phase}", seconds, "s")
    gap = {name: policy["normalized_gap"]["mean"] for name, policy in results["policies"].items()}
    for name in ("fine_tuned", "posterior_mean"):
        yield row(f"random_mdp, normalised gap of {name}", gap[name], "")


def tests():
    """The quick tests, their programs on the GPU, float32 products in full precision."""
    workers = max((os.cpu_count() or 2) - 2, 2)
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadfile", "-m", "not slow"]
    command += ["-p", "no:benchmark", "tests"]  # a plugin that warns where tests run in parallel
    settings = {
        "JAX_PLATFORMS": "cuda,cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # each worker takes memory as it needs it
    }
    found = subprocess.run(command, env=os.environ | EXACT | settings, stdout=subprocess.PIPE, text=True)
    print(found.stdout)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|errors?)", found.stdout[-400:])}
    yield row("quick tests on the GPU, passed", counts.get("passed", 0), "")
    failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    yield row("quick tests on the GPU, failed", failed, "") | {"required": 0, "holds": found.returncode == 0}


PARTS = {  # with their time limits in seconds, which count the start of a process
    "large": (large, 150),
    "torch": (torch, 220),
    "language": (language, 150),
    "decisions": (decisions, 60),
    "demo": (demo, 200),
    "random_mdp": (random_mdp, 200),
    "tests": (tests, 400),
}


def throughput(step, least=10, seconds=2.0):
    """How often a second `step` runs when none waits for another; the last is waited for by reading its result."""

    def taken(n):
        began = time.perf_counter()
        for _ in range(n):
            last = step()
        last.ravel()[0].item()
        return time.perf_counter() - began

    taken(2)
    n = max(least, int(seconds / (taken(2) / 2)))
    return n / taken(n)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="this part (again for more)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the process of one part
    arguments = parser.parse_args(argv)
    with one_line_errors("benchmarks.gpu"):
        for name in arguments.only:
            if name not in PARTS:
                raise unknown("part", name, PARTS)
        if arguments.here:
            rows = []
            for found in PARTS[arguments.only[0]][0]():
                write_json(pathlib.Path(arguments.json), rows := [*rows, found])
            return
        made_with = made_with_gpu()
        name = made_with["machine"]["devices"].split(" x ")[1]
        path = pathlib.Path(arguments.json or f"benchmarks/results/{name}.json")
        path = path.with_name(path.name.replace(" ", "_"))
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = []
        for name in arguments.only or PARTS:
            rows += part(name)
            write_json(path, {"rows": rows, "made_with": made_with})
        show(rows, {})
        print(f"results: {path}")


def made_with_gpu() -> dict[str, Any]:
    """`icdm.provenance` as a process of its own finds it, so that the memory of the GPU stays free.

    Raises:
      UserError: JAX finds no GPU.
    """
    code = (
        "import json, jax; from icdm.provenance import provenance; "
        "print(json.dumps([jax.default_backend(), provenance()]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    backend, made_with = json.loads(found.stdout.splitlines()[-1]) if found.stdout else ("none", {})
    if backend != "gpu":
        raise UserError(
            "JAX finds no GPU here: install its package with pip install -e '.[cuda]', or look at nvidia-smi"
        )
    return made_with


def part(name: str) -> list[dict]:
    """The rows of one part, computed in another process; one row that says so if it fails or takes too long."""
    limit = PARTS[name][1]
    print(f"{name}: at most {limit} s", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--here", "--only", name, "--json", str(path)]
        began = time.perf_counter()
        try:
            failed = subprocess.run(command, timeout=limit).returncode
            failed = f"exit code {failed}" if failed else ""
        except subprocess.TimeoutExpired:
            failed = f"more than {limit} s"
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        rows = json.loads(path.read_text()) if path.exists() else []
        return [*rows, row(f"{name} failed: {failed}", 1.0, "", required=0)] if failed else rows


if __name__ == "__main__":
    main(sys.argv[1:])
