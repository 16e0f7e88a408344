"""One model for every small problem: it learns from problems of 1 to 64 states, 2 to 8 actions and 1 to 32 decisions.

    python -m experiments.run --config=experiments/configs/tabular.py --workdir=runs/tabular

The rows of a step come from several parts of a mixture: random MDPs whose labels are those of a planner that reads the
same context and goes on reading, and problems of the family `tabular` (banded, layered, with goals, costs and ends)
whose labels are Q*. States have random names in every row. Afterwards the model acts in problems that it has not been
trained for, whatever their sizes, without further training:

    python -m experiments.evaluate runs/tabular frozen_lake family=gym horizon=32 context.episodes=50

Some 55 minutes of two cores. `icdm export runs/tabular --model DIR` writes it for `icdm decide --model DIR`.
"""

from experiments.configs import planning

READS_ON = dict(teacher="posterior_mean_replanned")
MIXTURE = dict(
    small=dict(family="random_mdp:states=5,actions=3,horizon=6", context="uniform:10", rows=4, **READS_ON),
    middle=dict(family="random_mdp:states=10,actions=4,horizon=15", context="uniform:10", rows=2, **READS_ON),
    sure=dict(
        family="random_mdp:states=10,actions=4,horizon=15,concentration=0.05", context="uniform:20", rows=2, **READS_ON
    ),
    large=dict(family="random_mdp:states=20,actions=5,horizon=10", context="uniform:12", rows=3, **READS_ON),
    long=dict(family="random_mdp:states=7,actions=2,horizon=8,concentration=0.5", context="uniform:45", **READS_ON),
    larger=dict(family="random_mdp:states=32,actions=6,horizon=12,concentration=0.1", context="mixture:25", rows=2),
    largest=dict(family="random_mdp:states=64,actions=8,horizon=8", context="mixture:45", rows=1),
    bandit=dict(family="tabular:states=1,actions=6,horizon=4", context="uniform:25", rows=2),
    shown=dict(family='tabular:states=10,actions=3,horizon=10,noise="gaussian"', context="oracle:2", rows=4),
    mixed=dict(family="tabular:states=12,actions=4,horizon=20", context="mixture:15", rows=2),
    far=dict(family='tabular:states=25,actions=5,horizon=32,noise="bernoulli"', context="mixture:12", rows=2),
    ends=dict(family='tabular:states=16,actions=4,horizon=15,noise="bernoulli"', context="uniform:25", rows=2),
)


def get_config():
    c = planning.get_config()  # whose problems the model is measured in first
    c.model.update(width=96, layers=6, heads=6, kv_heads=6, hidden=256, max_length=2048)
    c.fine_tune.update(
        steps=2700,
        batch=27,
        teacher="oracle",  # each part has its own
        names=80,
        mixture=MIXTURE,
        learning_rate=1.5e-3,
        checkpoint_every=100,
    )
    c.evaluation.update(tasks=500, rows=250, planners=("optimistic", "pessimistic"))
    return c
