"""The paper's grid: the energy chain fully observed, partially observed, and ambiguous, at growing horizons.

    python -m experiments.sweep --config=experiments/configs/paper_sweep.py --workdir=runs/paper --seeds=3

Does fine-tuning gain more with a longer horizon, a less reliable meter, or more models in the ambiguity set?
K = 2 oracle episodes, as in arXiv 2605.09009. All runs of one seed share one pretraining. For a part of the grid:
`--config.sweep.horizon="(5,10)"`, `--config.sweep.problem="('energy_pomdp:fidelity=0.5',)"`.

Many hours of two cores.
"""

from ml_collections import config_dict

from experiments.configs import base, energy

METERS = tuple(f"energy_pomdp:fidelity={q}" for q in (1.0, 0.8, 0.5))
CLOUDS = (
    "energy_apomdp:n_models=1,pessimism=0.5",
    *(f"energy_apomdp:n_models={n},pessimism={alpha}" for n in (3, 5) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)),
)


def get_config():
    c = base.get_config()
    c.published = energy.PAPER
    # With one model every pessimism is the same problem; pictures and trends repeat it at all values.
    same = config_dict.create(n_models=(1, "pessimism"))
    c.sweep = config_dict.create(problem=("energy", *METERS, *CLOUDS), horizon=(5, 10, 15, 30), same=same)
    seen, hidden = (f"energy:horizon={t}" for t in (5, 15)), (f"energy_pomdp:horizon={t}" for t in (10, 30))
    c.pretrain.update(steps=200, mixture=(*seen, *hidden))
    c.fine_tune.update(steps=400, labels="advantage", pool=128)
    return c
