"""A large model of random MDPs of 20 states, contexts of 31 episodes of 32 steps: for accelerators alone.

    python -m experiments.run --config=experiments/configs/large.py --workdir=runs/large
    python -m experiments.compile --config=experiments/configs/large.py:1b --topology=v5e:8x8

The first has 100 M weights, large.py:1b has 1 B; the second command says what each of 64 chips would do.
Rows are 1,056 positions. Weights are float32, the computation is bfloat16, activations are computed again.
"""

from experiments.configs import base

SHAPES = {
    "100m": dict(width=768, layers=14, heads=6, kv_heads=6, hidden=2048),
    "1b": dict(width=2048, layers=20, heads=16, kv_heads=16, hidden=5632),
}


def get_config(size: str = "100m"):
    c = base.get_config()
    c.family = "random_mdp"
    c.horizon = 32
    c.problem = dict(states=20, actions=5, concentration=0.05)
    c.context.update(episodes=31, behavior="uniform")
    c.query_behavior = "uniform"
    c.reward_bins = 2
    c.model.update(dtype="bfloat16", max_length=1056, remat=True, **SHAPES[size])
    c.pretrain.steps = 0
    c.fine_tune.update(steps=20_000, batch=64, learning_rate=3e-4, warmup=1000, labels="advantage", temperature=0.1)
    return c
