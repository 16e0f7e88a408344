"""One model for small problems of many sizes: random MDPs of 5 to 20 states, and problems of the family `tabular`.

    python -m experiments.run --config=experiments/configs/tabular.py --workdir=runs/tabular

The rows of a step come from several parts of a mixture: random MDPs whose labels are those of a planner that reads the
same context and goes on reading, and problems of the family `tabular` (banded, layered, with goals, costs and ends)
whose labels are Q*. States have random names in every row. Afterwards the model acts in problems that it has not been
trained for without further training:

    python -m experiments.evaluate runs/tabular frozen_lake family=gym horizon=32 context.episodes=50

Some 12 minutes of two cores. `icdm export runs/tabular --model DIR` writes it for `icdm decide --model DIR`.
"""

from experiments.configs import planning

READS_ON = dict(teacher="posterior_mean_replanned")
MIXTURE = dict(
    small=dict(family="random_mdp:states=5,actions=3,horizon=6", context="uniform:10", rows=8, **READS_ON),
    middle=dict(family="random_mdp:states=10,actions=4,horizon=10", context="uniform:10", rows=6, **READS_ON),
    large=dict(family="random_mdp:states=20,actions=5,horizon=10", context="uniform:12", rows=4, **READS_ON),
    sure=dict(
        family="random_mdp:states=10,actions=4,horizon=15,concentration=0.05", context="uniform:20", rows=2, **READS_ON
    ),
    mixed=dict(family="tabular:states=12,actions=4,horizon=10", context="mixture:10", rows=2),
    shown=dict(family='tabular:states=10,actions=3,horizon=10,noise="gaussian"', context="oracle:2", rows=3),
)


def get_config():
    c = planning.get_config()  # whose problems the model is measured in first
    c.model.max_length = 2048
    c.fine_tune.update(
        steps=2200,
        batch=25,
        teacher="oracle",  # each part has its own
        names=80,
        mixture=MIXTURE,
        checkpoint_every=1000,
    )
    c.evaluation.update(tasks=500, rows=250, planners=("optimistic", "pessimistic"))
    return c
