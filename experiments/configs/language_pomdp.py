"""The energy chain with an unreliable meter, as text: the language model beside learners from nothing.

python -m experiments.sweep --config=experiments/configs/language_pomdp.py --workdir=runs/language_pomdp

Some 21 minutes of two cores with one seed.
"""

from ml_collections import config_dict

from experiments.configs import language_energy, language_sweep


def get_config():
    c = language_energy.get_config()
    c.family = "energy_pomdp"
    c.label_oracle.update(points=48)
    c.sweep = config_dict.ConfigDict(
        dict(
            problem=("energy_pomdp:fidelity=0.5", "energy_pomdp:fidelity=0.8"),
            distinct_tasks={"100": language_sweep.distinct_tasks()["100"]},
            learner=language_sweep.learners(),
        )
    )
    return c
