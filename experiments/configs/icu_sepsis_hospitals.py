"""Hospitals that differ from ICU-Sepsis, K = 10 episodes of the clinicians' policy from each.

    python -m experiments.run --config=experiments/configs/icu_sepsis_hospitals.py --workdir=runs/hospitals

A hospital is 51 MB and takes a second or two to make, so training uses a pool of them.
It needs the extra `clinical`.
"""

from experiments.configs import icu_sepsis


def get_config():
    c = icu_sepsis.get_config()
    c.family = "icu_sepsis_hospitals"
    c.horizon = 20
    c.problem = dict(concentration=100.0)
    c.context.episodes = 10
    c.model.layers = 3
    c.pretrain.update(steps=100, batch=32, mixture=("icu_sepsis:horizon=20",))
    c.fine_tune.update(steps=800, batch=32, pool=20)
    c.evaluation.update(tasks=10, episodes=10, rows=20)
    return c
