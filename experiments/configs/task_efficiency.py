"""How many training tasks does a learner need? Curves against their number, with the same updates everywhere.

    python -m experiments.sweep --config=experiments/configs/task_efficiency.py --workdir=runs/task_efficiency --seeds=3

The whole grid is for a cluster. The part that says most is that of --sweep domain=random_mdp --sweep data=rich.

start: `nothing`, or `tabular`, the model of the package, which has the same shape. Its mixture holds the problems of
`random_mdp` and no energy chain, so that `domain=energy` measures transfer. data: `rich`, mixed behaviors whose labels
carry Q*; `paper`, the oracle's own episodes and actions. The weights of a run are those with the lowest loss on
held-out tasks, a fifth of the training tasks (one of 4), or the last ones where tasks are endless. `memoriser` in the
results is the Bayes reader whose prior is the training tasks, `posterior_mean` the one with the true prior.

The part with `random_mdp` and `rich` took 120 minutes of two cores with two seeds.
"""

from ml_collections import config_dict

from experiments.configs import tabular

ROWS = 32
ROOM = dict(family="tabular:states=6,actions=8,horizon=40", context="mixture:2", rows=0)  # names that `tabular` has
TASKS = (4, 16, 64, 256, 1024, 4096)
VALIDATED = dict(validation=0.2, validate_every=50, patience=1000)
DOMAINS = dict(
    random_mdp=dict(
        family="random_mdp",
        horizon=6,
        problem=dict(states=5, actions=3),
        context=dict(episodes=10, behavior="uniform"),
        fine_tune=dict(
            mixture=dict(
                own=dict(family="random_mdp:states=5,actions=3,horizon=6", context="uniform:10", rows=ROWS), room=ROOM
            )
        ),
    ),
    energy=dict(
        family="energy",
        horizon=15,
        problem=dict(),
        context=dict(episodes=2, behavior="oracle"),
        fine_tune=dict(mixture=dict(own=dict(family="energy:horizon=15", context="oracle:2", rows=ROWS), room=ROOM)),
    ),
)
STARTS = dict(nothing=dict(), tabular=dict(fine_tune=dict(start="tabular")))
DATA = dict(
    rich=dict(query_behavior="mixture", fine_tune=dict(labels="advantage")),
    paper=dict(query_behavior="oracle", fine_tune=dict(labels="argmax")),
)


def get_config():
    c = tabular.get_config()
    c.problem = dict()
    c.fine_tune.mixture = dict()
    c.fine_tune.update(steps=1000, batch=ROWS, learning_rate=1.5e-3, checkpoint_every=1000)
    c.evaluation.update(tasks=500, rows=500, planners=())
    tasks = {str(n): dict(fine_tune=dict(pool=n) | VALIDATED) for n in TASKS} | dict(endless=dict())
    c.sweep = config_dict.ConfigDict(dict(domain=DOMAINS, distinct_tasks=tasks, start=STARTS, data=DATA))
    return c
