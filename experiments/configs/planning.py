"""Random MDPs in which planning pays: nearly deterministic, 15 decisions, 20 uniform episodes as context.

    python -m experiments.run --config=experiments/configs/planning.py --workdir=runs/planning

A reader that looks one reward ahead (`myopic`) is far behind one that plans; `planning_share` in results.json says how
much of that distance the model covers. Its layers can compute value iteration: positions of the context read one
another, and each layer is asked for the Q-values with one more reward to come. The labels are those of the
posterior-mean planner, which reads the same context.

The config planning_sweep shows what each of these settings is worth.

Some 35 minutes of two cores.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "random_mdp"
    c.horizon = 15
    c.problem = dict(states=10, actions=4, discount=1.0, concentration=0.05)
    c.context.update(episodes=20, behavior="uniform")
    c.reward_bins = 2
    c.model.update(rotary_base=0.0, prefix=True)
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(
        steps=3000,
        batch=16,
        labels="advantage",
        temperature=0.1,
        teacher="posterior_mean",
        iterates=True,
        learning_rate=2e-3,
        warmup=100,
    )
    c.evaluation.update(tasks=1000, episodes=1, rows=500)
    return c
