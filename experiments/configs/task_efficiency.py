"""How many training tasks does a learner need? Curves against their number, with the same updates everywhere.

    python -m experiments.sweep --config=experiments/configs/task_efficiency.py --workdir=runs/task_efficiency --seeds=3

The whole grid is for a cluster. The part that says most:
--sweep distinct_tasks=4,16,64,256,1024,4096,endless --sweep start=nothing --sweep data=rich --sweep domain=random_mdp

start: `nothing`; `pretrained`, on a mixture that holds the family; `transfer`, on one that does not. data: `rich`,
mixed behaviors whose labels carry Q*; `paper`, the oracle's own trajectories and actions. The weights of a run are
those with the lowest loss on held-out tasks, a fifth of the training tasks (one of 4), or the last ones where tasks are
endless. `memoriser` in the results is the Bayes reader whose prior is the training tasks, `posterior_mean` the one with
the true prior.
"""

from ml_collections import config_dict

from experiments.configs import base

TASKS = (4, 16, 64, 256, 1024, 4096)
VALIDATED = dict(validation=0.2, validate_every=50, patience=1000)
DOMAINS = dict(
    random_mdp=dict(
        family="random_mdp", horizon=6, problem=dict(states=5, actions=3), context=dict(episodes=10, behavior="uniform")
    ),
    energy=dict(family="energy", horizon=15, context=dict(episodes=2, behavior="oracle")),
)
STARTS = dict(
    nothing=dict(),
    pretrained=dict(pretrain=dict(steps=500, mixture=("random_mdp", "energy:horizon=15"))),
    transfer=dict(pretrain=dict(steps=500, mixture=("linear_mdp:horizon=6", "dark_room:size=3,horizon=6"))),
)
DATA = dict(
    rich=dict(query_behavior="mixture", fine_tune=dict(labels="advantage")),
    paper=dict(query_behavior="oracle", fine_tune=dict(labels="argmax")),
)


def get_config():
    c = base.get_config()
    c.reward_bins = 2
    c.model.rotary_base = 0.0
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=1000, temperature=0.1, warmup=100)
    c.evaluation.update(tasks=1000, episodes=1, rows=1000)
    tasks = {str(n): dict(fine_tune=dict(pool=n) | VALIDATED) for n in TASKS} | dict(endless=dict())
    c.sweep = config_dict.ConfigDict(dict(domain=DOMAINS, distinct_tasks=tasks, start=STARTS, data=DATA))
    return c
