"""ICU-Sepsis, learned from trajectories of the clinicians' policy with oracle labels, horizon 50.

    python -m experiments.run --config=experiments/configs/icu_sepsis.py --workdir=runs/icu_sepsis

There is one task, so this asks what can be learned from the clinicians' records, not what the context adds.
It is measured on 20,000 simulated patients. It needs the extra `clinical`.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "icu_sepsis"
    c.horizon = 50
    c.problem = dict()
    c.context.update(episodes=1, behavior="expert")
    c.query_behavior = "expert"
    c.reward_bins = 2
    c.pretrain.update(steps=200, mixture=("icu_sepsis",), behavior="expert")
    c.model.layers = 2  # the model memorises 716 states and computes little
    c.fine_tune.update(steps=3000, labels="advantage", temperature=0.05, learning_rate=5e-3)
    c.evaluation.update(tasks=1, episodes=20_000, rows=2000)
    return c
