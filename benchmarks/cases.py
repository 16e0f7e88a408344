"""The benchmarks, by name. Each yields rows {"name", "value", "unit", "reference", "ratio", "required", "holds"}."""

import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.timing import alternating, seconds
from icdm.errors import UserError


def row(name, value, unit, *, reference=None, reference_name="", required=None, at_most=True):
    """A measured number, its ratio to a reference, and the bound that it must keep."""
    found = {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "reference_name": reference_name,
    }
    found["ratio"] = None if reference is None else value / reference
    held = found["value"] if reference is None or required is None else found["ratio"]
    found["required"] = required
    found["holds"] = None if required is None else bool(held <= required if at_most else held >= required)
    return found


def training(quick):
    """Tokens per second in training against PyTorch, eager and compiled, same shape, alternating steps."""
    from benchmarks import jax_gpt

    shape = dict(vocabulary=256, length=256, width=128, layers=4, heads=4, batch=32)
    steps, wanted = {"ours": jax_gpt.training_step(**shape)}, {"PyTorch eager": 1.0, "torch.compile": 0.9}
    try:
        from benchmarks import torch_gpt

        steps |= {name: torch_gpt.training_step(**shape, compiled=name == "torch.compile") for name in wanted}
    except ImportError:
        print("training: no PyTorch here (pip install 'icdm[bench]'), so no reference")
    works = {name: lambda step=step: float(step()) for name, step in steps.items()}
    taken = alternating(works, repeats=3 if quick else 7, warmups=2)
    rate = {name: shape["batch"] * shape["length"] / x for name, x in taken.items()}
    title = "training, width 128, length 256"
    yield row(title, rate["ours"], "tokens/s")
    for name in [name for name in wanted if name in rate]:
        reference = dict(reference=rate[name], reference_name=name)
        yield row(
            f"{title}, beside {name}", rate["ours"], "tokens/s", **reference, required=wanted[name], at_most=False
        )
    began = time.perf_counter()
    float(jax_gpt.training_step(**shape | {"layers": 12})())
    yield row("first step of 12 layers, with compilation", time.perf_counter() - began, "s")


def adapters(quick):
    """A training step of adapters of rank 16 beside the weights, width 576, 12 layers, against one that merges them."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from icdm.learning.train import TrainConfig, fresh_state, make_update
    from icdm.models.transformer import ModelConfig, Transformer
    from icdm.trajectories.layouts.vocabulary import Tokens

    batch, length, vocabulary, training = (2 if quick else 8), 128, 256, TrainConfig(lora_rank=16)
    config = ModelConfig(width=576, layers=12, heads=9, kv_heads=3, hidden=1536, max_length=length)
    model = Transformer(config, vocabulary, nnx.Rngs(0))
    id_BL = jax.random.randint(jax.random.key(1), (batch, length + 1), 0, vocabulary)
    tokens = Tokens(id_BL[:, :-1, None], jnp.zeros((batch, length, 1)), jnp.ones((batch, length), bool))
    bytes_used = {}

    def step_of(name, merge):
        def loss(model, batch, key):
            model = model.merged() if merge else model
            logits = model.logits(model(batch).hidden)
            return optax.softmax_cross_entropy_with_integer_labels(logits, id_BL[:, 1:]).mean(), batch.valid.sum()

        held = [fresh_state(model, training, jax.random.key(0))]
        update = make_update(loss, training.optimizer(), training.lora).lower(held[0], model, tokens).compile()
        bytes_used[name] = update.memory_analysis().temp_size_in_bytes

        def step():
            held[0], numbers = update(held[0], model, tokens)
            return float(numbers[0])

        return step

    works = {"beside": step_of("beside", merge=False), "merged": step_of("merged", merge=True)}
    taken = alternating(works, repeats=2 if quick else 5, warmups=1)
    yield row(
        "adapter step, width 576, 12 layers",
        taken["beside"],
        "s",
        reference=taken["merged"],
        reference_name="merging in the step",
        required=1.0,
    )
    yield row(
        "adapter step, working memory",
        bytes_used["beside"] / 2**20,
        "MiB",
        reference=bytes_used["merged"] / 2**20,
        reference_name="merging in the step",
        required=1.0,
    )


def decoding(quick):
    """One decision from the KV cache against reading everything again, at growing contexts."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from icdm.models.transformer import ModelConfig, Transformer
    from icdm.trajectories.layouts.vocabulary import Tokens

    model = Transformer(ModelConfig(max_length=1100), 64, nnx.Rngs(0))
    forward = jax.jit(lambda model, tokens: model(tokens).hidden[:, -1])
    cached = jax.jit(lambda model, tokens, cache: model(tokens, cache), donate_argnums=2)

    def tokens(n):
        id_BL1 = jnp.asarray(np.random.default_rng(n).integers(0, 64, (1, n, 1)), jnp.int32)
        return Tokens(id_BL1, jnp.zeros((1, n, 1)), jnp.ones((1, n), bool))

    for n in (100, 500) if quick else (100, 500, 1000):
        held = [jax.jit(lambda model, read: model(read, model.empty_cache(1, n + 64)).cache)(model, tokens(n))]
        one, whole = tokens(1), tokens(n + 1)

        def next_one():
            output = cached(model, one, held[0])
            held[0] = output.cache._replace(length=jnp.full(1, n, jnp.int32))
            output.hidden.block_until_ready()

        works = {"cached": next_one, "whole": lambda: forward(model, whole).block_until_ready()}
        taken = alternating(works, repeats=30, warmups=3)
        yield row(
            f"decoding at {n} positions, from the cache",
            1e3 * taken["cached"],
            "ms",
            reference=1e3 * taken["whole"],
            reference_name="reading all again",
            required=1.0,
        )


def decision(quick):
    """Median latency of one decision of a demo-size model after 500 steps of context."""
    import pathlib
    import statistics

    import jax.numpy as jnp
    import numpy as np

    from icdm.runs.decider import Decider
    from icdm.runs.run import Run
    from icdm.runs.settings import completed
    from icdm.trajectories.trajectory import Trajectories

    config = {"family": "random_mdp", "horizon": 100, "pretrain": {"steps": 0}, "fine_tune": {"steps": 0}}
    decider = Decider(Run(pathlib.Path(), completed(config)))
    rng = np.random.default_rng(0)
    shown = [rng.integers(0, 5, (1, 5, 101)), rng.integers(0, 3, (1, 5, 100)), rng.random((1, 5, 100))]
    context = Trajectories(*(jnp.asarray(x) for x in shown), jnp.ones((1, 5, 100), bool))
    decider.reset(context)
    taken = []
    for _ in range(60):
        began = time.perf_counter()
        found = decider.act(rng.integers(0, 5, 1))
        taken.append(time.perf_counter() - began)
        decider.observe(found.action, [1.0])
    yield row("one decision after 500 steps (p50)", 1e3 * statistics.median(taken[10:]), "ms", required=5.0)


def long_context(quick):
    """The model of the package and contexts of up to 5,000 steps: reading, one decision, one training step.

    50 states, 5 actions, episodes of 25 steps, one row. Activations of the training step are computed again in the
    backward pass; the memory of both kinds of step is what their compiled programs ask for.
    """
    import dataclasses

    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from icdm.learning.objectives import Imitation, Lesson, action_loss
    from icdm.learning.train import TrainConfig, fresh_state, make_update
    from icdm.models.transformer import Transformer
    from icdm.runs.decider import Decider
    from icdm.trajectories.trajectory import Trajectories

    states, actions, horizon = 50, 5, 25
    decider = Decider.pretrained("tabular", states=states, actions=actions, horizon=horizon)
    layout, training = decider.run.layout, TrainConfig()
    rng = np.random.default_rng(0)

    def record(episodes):
        shown = rng.integers(0, states, (1, episodes, horizon + 1)), rng.integers(0, actions, (1, episodes, horizon))
        paid = rng.random((1, episodes, horizon), np.float32)
        return Trajectories(*(jnp.asarray(x) for x in shown), jnp.asarray(paid), jnp.ones(paid.shape, bool))

    def training_step(episodes, remat):
        rows = record(episodes + 1)
        lesson = Lesson(rows, Imitation(rows.action))
        config = dataclasses.replace(decider.run.settings.model, remat=remat)
        model = Transformer(config, layout.size, nnx.Rngs(0), layout.numbers)
        update = make_update(lambda model, batch, key: action_loss(model, layout, [batch]), training.optimizer())
        state = fresh_state(model, training, jax.random.key(0))
        return update.lower(state, None, lesson).compile(), state, lesson

    lengths = (500, 1000, 2000) if quick else (500, 1000, 2000, 5000)
    times: dict[str, list[float]] = {"training step": [], "reading": [], "decision": []}
    for length in lengths:
        context = record(length // horizon)
        compiled, *arguments = training_step(length // horizon, True)
        kept, *_ = training_step(length // horizon, False)
        state = [arguments[0]]

        def step(compiled=compiled, state=state, lesson=arguments[1]):
            state[0], numbers = compiled(state[0], None, lesson)
            numbers[0].block_until_ready()

        def read(context=context):
            decider.reset(context)
            jax.block_until_ready(decider.carry)

        times["training step"].append(seconds(step, repeats=3))
        times["reading"].append(seconds(read, repeats=3))
        read()
        decisions = []
        for _ in range(horizon):
            began = time.perf_counter()
            action = decider.act(rng.integers(0, states, 1)).action
            decisions.append(time.perf_counter() - began)
            decider.observe(action, [1.0])
        times["decision"].append(sorted(decisions)[horizon // 2])
        for name, program in {"activations computed again": compiled, "activations kept": kept}.items():
            used = program.memory_analysis().temp_size_in_bytes / 2**20
            yield row(f"context of {length} steps, memory of a training step, {name}", used, "MiB")
        for name, taken in times.items():
            required = 20.0 if name == "decision" and length == 5000 else None
            yield row(f"context of {length} steps, {name}", 1e3 * taken[-1], "ms", required=required)
    for name, taken in times.items():
        exponent = np.polyfit(np.log(lengths), np.log(taken), 1)[0]
        yield row(f"time of a {name} as a power of the length of the context", float(exponent), "")


def environment(quick):
    """Environment steps per second of the one rollout."""
    import jax
    import jax.numpy as jnp

    from icdm.problems.family import make_family
    from icdm.problems.policy import uniform_policy
    from icdm.trajectories.collect import draw_tasks
    from icdm.trajectories.rollout import rollout

    family = make_family("random_mdp", horizon=50)
    tasks = draw_tasks(family, jax.random.key(0), 64)
    task = jnp.arange(2048) % 64
    run = jax.jit(lambda key: rollout(tasks.problem, task, uniform_policy(5, 3), key).reward)
    taken = seconds(lambda: run(jax.random.key(1)).block_until_ready())
    yield row("environment steps, random_mdp, 2,048 rows", 2048 * 50 / taken, "steps/s")


def online(quick):
    """200 bandits side by side, acting 500 steps from an empty history, the DPT's model size."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from icdm.models.policy import TransformerPolicy
    from icdm.models.transformer import ModelConfig, Transformer
    from icdm.problems.family import make_family
    from icdm.trajectories.collect import draw_tasks
    from icdm.trajectories.layouts import make_layout
    from icdm.trajectories.rollout import rollout

    steps = 500
    family = make_family("bandit", horizon=steps)
    layout = make_layout("transition", family, reward_bins=2)
    config = ModelConfig(width=32, layers=4, heads=1, kv_heads=1, hidden=64, rotary_base=0.0, max_length=steps + 1)
    model = Transformer(config, layout.size, nnx.Rngs(0))
    tasks = draw_tasks(family, jax.random.key(0), 200)
    run = jax.jit(lambda p, key: rollout(tasks.problem, jnp.arange(200), p, key).reward)
    policy = TransformerPolicy(model, None, layout)
    taken = seconds(lambda: run(policy, jax.random.key(1)).block_until_ready(), repeats=1 if quick else 3)
    yield row(f"online rollout, 200 bandits, {steps} steps", taken, "s", required=10.0)


def point_based(quick):
    """Both bounds of POMDPs of 20 states, 5 actions, 6 observations, horizon 50 at 128 beliefs, float64."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from icdm.oracles.belief import belief_model
    from icdm.oracles.point_based import solve_at_points
    from icdm.problems.family import make_family
    from icdm.trajectories.collect import draw_problems

    family = make_family("random_pomdp", states=20, actions=5, observations=6, horizon=50, shows_reward=False)
    with jax.enable_x64(True):
        problems = draw_problems(family, jax.random.key(0), 8)
        models = [belief_model(jax.tree.map(lambda x: np.asarray(x[i]), problems)) for i in range(8)]
        model = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
        met = np.random.default_rng(0).dirichlet(np.full(20, 0.3), 108)
        points = jnp.asarray(np.concatenate([np.eye(20), met]))
        start = (jnp.zeros((128, 20)), jnp.zeros(128), jnp.zeros((20, 5)))
        solve = jax.jit(lambda model: jax.lax.map(lambda one: solve_at_points(one, points, start), model))
        for n in (1, 8):
            some = jax.tree.map(lambda leaf: leaf[:n], model)
            taken = seconds(lambda: jax.block_until_ready(solve(some)), repeats=2 if quick else 7)
            yield row(f"point-based POMDP solving, 128 beliefs, {n} at once", 1e3 * taken / n, "ms", required=100.0)


def planning(quick):
    """Backward induction, a batch of MDPs of 20 states, 5 actions, horizon 50, float32."""
    import jax

    from icdm.oracles.backward_induction import backward_induction
    from icdm.problems.family import make_family
    from icdm.trajectories.collect import draw_problems, to_float32

    n = 500 if quick else 2000
    mdps = to_float32(draw_problems(make_family("random_mdp", states=20, actions=5, horizon=50), jax.random.key(0), n))
    solve = jax.jit(lambda mdps: jax.lax.map(lambda mdp: backward_induction(mdp)[1][0], mdps, batch_size=16))
    taken = seconds(lambda: solve(mdps).block_until_ready())
    yield row(
        "backward induction, 20 states, 5 actions, T = 50",
        1e6 * taken / n,
        "us per MDP",
        required=25 / 193,
        reference=193.0,
        reference_name="QuantEcon (published trial)",
    )


def loading(quick):
    """Rows per second from a Parquet table: checked and read, and assembled into training sequences."""
    from icdm.learning.log_source import LogSource
    from icdm.logs.log import load
    from icdm.sharding import make_mesh

    with tempfile.TemporaryDirectory() as directory:
        table = random_table(f"{directory}/log.parquet", 200_000 if quick else 2_000_000)
        yield row("reading a Parquet table", table.n_rows / seconds(lambda: load(table), repeats=2), "rows/s")
        log = load(table)
    log.label[:] = log.action
    dataset = LogSource(log, context_episodes=4, rows=64, seed=0, mesh=make_mesh()).dataset
    taken = seconds(lambda: [dataset[i] for i in range(20)], repeats=3)
    yield row("sequences of 5 x 20 steps, batches of 64", 20 * 64 * 100 / taken, "rows/s")


def memory(quick):
    """The largest memory of an experiment, started as a user would, on a file of ten million rows."""
    if quick:
        return
    with tempfile.TemporaryDirectory() as directory:
        table = random_table(f"{directory}/log.parquet", 10_000_000)
        command = [
            sys.executable,
            "-m",
            "experiments.run",
            "--config=benchmarks/long_log.py",
            f"--config.data={table.path}",
            f"--workdir={directory}/run",
        ]
        gib = gib_of(command)
        yield row("training on a table of 10 million rows, memory", gib, "GiB", required=2.0)


def gib_of(command):
    """The largest memory of a command, in GiB.

    Raises:
      UserError: the command failed.
    """
    # Between us and it stands a small process: a new one inherits the peak of the one that starts it.
    told = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
    told += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    found = subprocess.run([sys.executable, "-c", told, *command], stdout=subprocess.PIPE, text=True)
    if found.returncode:
        raise UserError(f"{' '.join(command)} failed")
    return int(found.stdout) / (2**30 if sys.platform == "darwin" else 2**20)


def random_table(path, n_rows, steps=20):
    """A table of episodes of random steps, ten to a task, written as a stream."""
    import numpy as np

    from icdm.logs.table import NOTHING, Rows, plain_codings, write_table

    def chunks(size=200_000):
        rng = np.random.default_rng(0)
        for start in range(0, n_rows, size):
            n = min(size, n_rows - start)
            episode = (start + np.arange(n)) // steps
            yield Rows(
                episode // 10,
                episode,
                (start + np.arange(n)) % steps,
                rng.integers(0, 700, n),
                rng.integers(0, 25, n),
                rng.random(n),
                np.full(n, NOTHING),
                np.full(n, np.nan),
                np.zeros(n, bool),
            )

    return write_table(path, chunks(), plain_codings(700, 25))


def language(quick):
    """Adapters of a published model of 135 million weights, and acting with it, against transformers and peft."""
    from benchmarks import language as ours

    try:
        from benchmarks import torch_language

        rows = ours.Rows.of_config()
    except (UserError, ImportError) as missing:
        print(f"language: left out ({missing}); it needs `make language` and pip install 'icdm[language,bench]'")
        return
    kinds = {"activations kept": False, "activations computed again": True}
    repeats = 2 if quick else 5
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        rows.write(directory)
        given = rows.given()
        for kind, again in kinds.items():
            works = {
                "ours": ours.training_step(rows, again),
                "torch": torch_language.training_step(directory, again, **given),
            }
            taken = alternating(works, repeats)
            yield row(
                f"adapter step of SmolLM2, {kind}",
                given["id_BL"].size / taken["ours"],
                "tokens/s",
                reference=given["id_BL"].size / taken["torch"],
                reference_name="transformers + peft",
                required=1.0,
                at_most=False,
            )
            used = {
                side: gib_of([sys.executable, "-m", f"benchmarks.{side}", name, *(["--again"] if again else [])])
                for side in ("language", "torch_language")
            }
            yield row(
                f"adapter step of SmolLM2, {kind}, memory of the process",
                used["language"],
                "GiB",
                reference=used["torch_language"],
                reference_name="transformers + peft",
                required=1.0,
            )
        torch_plays = torch_language.play(directory, rows.read, rows.horizon, **given)
        decided = alternating({"ours": ours.play(rows), "torch": torch_plays}, repeats)
    decisions = len(given["id_BL"]) * rows.horizon
    yield row(
        "decisions of SmolLM2, 8 rows with their contexts",
        decisions / decided["ours"],
        "decisions/s",
        reference=decisions / decided["torch"],
        reference_name="transformers",
        required=1.0,
        at_most=False,
    )


def start_up(quick):
    """Wall time of a command's --help."""
    command = [sys.executable, "-m", "experiments.run", "--help"]
    taken = seconds(lambda: subprocess.run(command, capture_output=True), repeats=3)
    yield row("python -m experiments.run --help", taken, "s", required=1.0)


CASES = {
    "training": training,
    "adapters": adapters,
    "decoding": decoding,
    "decision": decision,
    "long_context": long_context,
    "environment": environment,
    "online": online,
    "planning": planning,
    "point_based": point_based,
    "loading": loading,
    "memory": memory,
    "language": language,
    "start_up": start_up,
}
