"""Hospitals that differ from ICU-Sepsis, K = 20 episodes of the clinicians' policy from each.

    python -m experiments.run --config=experiments/configs/icu_sepsis_hospitals.py --workdir=runs/hospitals

A hospital is half a gigabyte while it is being made and 51 MB afterwards, so training uses a pool of them.
Needs the extra `clinical`.
"""

from experiments.configs import icu_sepsis


def get_config():
    c = icu_sepsis.get_config()
    c.family = "icu_sepsis_hospitals"
    c.horizon = 20
    c.problem = dict(concentration=100.0)
    c.context.episodes = 10
    c.pretrain.update(mixture=("icu_sepsis:horizon=20",))
    c.fine_tune.update(batch=32, pool=24)
    c.evaluation.update(tasks=20, episodes=10, rows=20)
    return c
