"""Exploration from nothing: what must a model learn from, so that it tries what it does not know?

    python -m experiments.sweep --config=experiments/configs/exploration.py --workdir=runs/exploration

Every decider acts in episode after episode of a task, from nothing, and reads what it did before. domain: `bandit`, 5
Bernoulli arms, 100 pulls, each of them an episode; `random_mdp`, 5 states, 3 actions, 20 episodes of 6 decisions.
behavior: who acted in the rows of training, `uniform` or `posterior_sampling`, which learns from episode to episode.
labels: `argmax`, the oracle's action as a hard label (DPT), so that a draw from the model's softmax is a draw from the
posterior over optimal actions, Thompson sampling; `advantage`, values.

The published instance of the bandit is measured afterwards, in each run:

    python -m experiments.evaluate runs/exploration/RUN hard problem.gap=0.2

A run on bandits took 30 minutes of two cores beside other work.
"""

from ml_collections import config_dict

from experiments.configs import base

DOMAINS = dict(
    bandit=dict(
        family="bernoulli_bandit",
        horizon=1,
        problem=dict(arms=5, gap=0.0),
        context=dict(episodes=99),
        model=dict(width=32, layers=3),
        evaluation=dict(own_episodes=100),
    ),
    random_mdp=dict(
        family="random_mdp",
        horizon=6,
        problem=dict(states=5, actions=3),
        context=dict(episodes=19),
        model=dict(width=64, layers=4),
        evaluation=dict(own_episodes=20),
    ),
)
BEHAVIORS = {name: dict(context=dict(behavior=name), query_behavior=name) for name in ("posterior_sampling", "uniform")}
LABELS = {name: dict(fine_tune=dict(labels=name)) for name in ("argmax", "advantage")}


def get_config():
    c = base.get_config()
    c.reward_bins = 2
    c.problem = dict()
    c.model.rotary_base = 0.0
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=1000, batch=32, temperature=0.1, warmup=100)
    c.evaluation.update(tasks=1000, episodes=1, rows=250)
    c.sweep = config_dict.ConfigDict(dict(domain=DOMAINS, behavior=BEHAVIORS, labels=LABELS))
    return c
