"""One model for small problems of many sizes, second part: more kinds of problems and contexts, more planning.

    python -m experiments.run --config=experiments/configs/tabular_broad.py --workdir=runs/tabular_broad
    icdm export runs/tabular_broad --model model

It goes on from what the config `tabular` has learned and `icdm export` has written. Afterwards the model acts in
problems that it has not been trained for without further training:

    python -m experiments.evaluate runs/tabular_broad frozen_lake family=gym horizon=32 context.episodes=50

Some 50 minutes of two cores. docs/tabular.md says how the model of the package was trained.
"""

from experiments.configs import tabular
from experiments.configs.tabular import READS_ON, SURE

MIXTURE = dict(
    small=dict(family="random_mdp:states=5,actions=3,horizon=6", context="uniform:10", rows=5, **READS_ON),
    middle=dict(family="random_mdp:states=10,actions=4,horizon=10", context="uniform:10", rows=4, **READS_ON),
    large=dict(family="random_mdp:states=20,actions=5,horizon=10", context="uniform:12", rows=4, **READS_ON),
    sure=dict(family=f"random_mdp:states=10,actions=4,horizon=15,{SURE}", context="uniform:20", rows=4, **READS_ON),
    brisk=dict(family=f"random_mdp:states=6,actions=3,horizon=12,{SURE}", context="uniform:10", rows=3, **READS_ON),
    filled=dict(family="random_mdp:states=10,actions=4,horizon=10", context="uniform:50", rows=2, **READS_ON),
    distant=dict(family="random_mdp:states=10,actions=4,horizon=40", context="uniform:10", rows=2, **READS_ON),
    behaved=dict(family="random_mdp:states=10,actions=4,horizon=10", context="mixture:10", rows=3),
    expert=dict(family="random_mdp:states=8,actions=4,horizon=8", context="oracle:10", rows=3),
    shown=dict(family='tabular:states=10,actions=3,horizon=10,noise="gaussian"', context="oracle:2", rows=3),
    mixed=dict(family="tabular:states=12,actions=4,horizon=10", context="mixture:8", rows=2),
    lake=dict(family="tabular:states=16,actions=4,horizon=24", context="mixture:8", rows=2),
    goal=dict(family="tabular:states=25,actions=4,horizon=25", context="mixture:10", rows=2),
    huge=dict(family="random_mdp:states=40,actions=6,horizon=10", context="uniform:16", rows=1, **READS_ON),
    long=dict(family="tabular:states=6,actions=8,horizon=40", context="mixture:2", rows=1),
)


def get_config():
    c = tabular.get_config()
    c.fine_tune.update(steps=4500, batch=41, learning_rate=1.5e-3, start="runs/tabular_model")
    c.fine_tune.mixture = MIXTURE
    return c
