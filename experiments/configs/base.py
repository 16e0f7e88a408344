"""Every field of an experiment with its default; the other configs say where they differ."""

from ml_collections import config_dict


def get_config():
    c = config_dict.ConfigDict()
    c.seed = 0

    # The problem: a family's name, the decisions in an episode, and its other parameters (see icdm/problems/).
    c.family = "energy"
    c.horizon = 5
    c.problem = config_dict.create(discount=0.95)

    # What a decider is shown: K episodes of a behavior; then one is recorded by the query behavior for training.
    c.context = config_dict.create(episodes=2, behavior="oracle", epsilon=0.2)
    c.query_behavior = "mixture"  # oracle, uniform, epsilon_greedy, mixture, expert

    # A file of recorded trajectories to learn from in place of the family's own, and what is learned from it.
    c.data = ""
    c.data_labels = "oracle"  # imitation, best_return, pessimistic
    c.single_steps = False  # its contexts are independent steps, not episodes

    # How it is written down, and who reads it.
    c.layout = "transition"  # or interleaved
    c.reward_bins = 16
    c.model = config_dict.create(
        width=64,
        layers=4,
        heads=4,
        kv_heads=4,
        hidden=128,
        mlp="gated",
        mixing=0,
        rotary_base=10_000.0,
        max_length=1024,
        dtype="float32",
    )

    # How it learns: next token on a mixture of families, then the oracle's action on this one.
    optimizer = dict(
        batch=64,
        learning_rate=2e-3,
        warmup=50,
        weight_decay=0.01,
        clip=1.0,
        lora_rank=0,
        checkpoint_every=250,
        log_every=25,
    )
    c.pretrain = config_dict.create(steps=300, mixture=("energy:horizon=5",), behavior="mixture", **optimizer)
    c.fine_tune = config_dict.create(steps=500, labels="boltzmann", temperature=0.1, pool=0, **optimizer)
    c.from_scratch = False  # also train without pretraining, on equally many tokens

    # How exactly hidden states are solved: to a bracket of this share of the value, or with this many points.
    c.oracle = config_dict.create(tolerance=0.005, points=112, time_limit=120.0)

    # How it is measured.
    c.evaluation = config_dict.create(tasks=100, episodes=4, rows=2000)
    c.mesh_model = 1  # devices that share one copy of the weights
    return c
