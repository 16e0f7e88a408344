"""Random POMDPs, K = 10 episodes of the uniform policy: the model of the task must be inferred from it.

    python -m experiments.run --config=experiments/configs/random_pomdp.py --workdir=runs/random_pomdp

The references are the oracle, which knows the model, and a planner that fits the likeliest POMDP to the same context
by expectation-maximisation (`certainty_equivalence`).

Some 18 minutes of one core.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "random_pomdp"
    c.horizon = 8
    c.problem = dict(states=5, actions=3, observations=4, discount=1.0)
    c.context.update(episodes=10, behavior="uniform")
    c.query_behavior = "mixture"
    c.reward_bins = 2
    c.model.update(width=128, hidden=256, mixing=2)  # several observations in a row inform about the state
    c.pretrain.update(steps=200, mixture=("random_pomdp",), behavior="uniform")
    c.fine_tune.update(steps=1500, learning_rate=1.5e-3, labels="advantage", temperature=0.2, pool=16384)
    c.evaluation.update(tasks=1600, episodes=4, rows=1600)
    c.test_oracle.points = 48
    return c
