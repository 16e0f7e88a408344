"""One model for small problems of many sizes, first part: random MDPs, and a few problems of the family `tabular`.

    python -m experiments.run --config=experiments/configs/tabular.py --workdir=runs/tabular
    icdm export runs/tabular --model runs/tabular_model

The rows of a step come from several parts of a mixture: random MDPs whose labels are those of a planner that reads the
same context and goes on reading, and problems of the family `tabular` (banded, layered, with goals, costs and ends)
whose labels are Q*. States have random names in every row. The config `tabular_broad` goes on from the exported model.
Some 12 minutes of two cores.
"""

from experiments.configs import planning

READS_ON = dict(teacher="posterior_mean_replanned")
SURE = "concentration=0.05"  # nearly deterministic transitions, where planning pays
MIXTURE = dict(
    small=dict(family="random_mdp:states=5,actions=3,horizon=6", context="uniform:10", rows=8, **READS_ON),
    middle=dict(family="random_mdp:states=10,actions=4,horizon=10", context="uniform:10", rows=6, **READS_ON),
    large=dict(family="random_mdp:states=20,actions=5,horizon=10", context="uniform:12", rows=4, **READS_ON),
    sure=dict(family=f"random_mdp:states=10,actions=4,horizon=15,{SURE}", context="uniform:16", rows=3, **READS_ON),
    shown=dict(family='tabular:states=10,actions=3,horizon=10,noise="gaussian"', context="oracle:2", rows=2),
    long=dict(family="tabular:states=6,actions=8,horizon=40", context="mixture:2", rows=2),
)


def get_config():
    c = planning.get_config()  # whose problems the model is measured in first
    c.model.update(max_length=8192, layers=5)
    c.fine_tune.update(
        steps=2000,
        batch=25,
        teacher="oracle",  # each part has its own
        names=80,
        mixture=MIXTURE,
        checkpoint_every=500,
    )
    c.evaluation.update(tasks=500, rows=250, planners=("optimistic", "pessimistic"))
    return c
