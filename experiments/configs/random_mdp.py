"""Random MDPs, K = 10 episodes of the uniform policy: nothing can be memorised, only the context informs.

    python -m experiments.run --config=experiments/configs/random_mdp.py --workdir=runs/random_mdp

Rows are exchangeable steps of a uniform policy, so attention is blind to order. The labels carry the Q-values.
The reference is the posterior-mean planner, which reads the same context exactly.

Some 10 minutes of two cores.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "random_mdp"
    c.horizon = 6
    c.problem = dict(states=5, actions=3, discount=1.0, concentration=0.2)
    c.context.update(episodes=10, behavior="uniform")
    c.query_behavior = "uniform"
    c.reward_bins = 2
    c.model.rotary_base = 0.0
    c.pretrain.update(steps=300, mixture=("random_mdp", "random_mdp:states=4,actions=2,horizon=6"))
    c.fine_tune.update(steps=3000, labels="advantage", temperature=0.1, warmup=100)
    c.evaluation.update(tasks=4000, episodes=4, rows=4000)
    return c
