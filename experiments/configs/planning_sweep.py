"""What it takes to plan: the config planning, and the same without one of its settings at a time.

    python -m experiments.sweep --config=experiments/configs/planning_sweep.py --workdir=runs/planning_sweep

`causal`: positions of the context attend to earlier ones alone. `last_layer`: only the last layer is asked for values.
`oracle_labels`: the labels are Q* of the task in place of what a posterior-mean planner makes of the context.
`two_layers`: half of the layers. All see the same rows, fewer than those of planning.

Four of its runs took 24 minutes of two cores.
"""

from ml_collections import config_dict

from experiments.configs import planning


def get_config():
    c = planning.get_config()
    c.fine_tune.update(steps=900)
    c.evaluation.update(tasks=500)
    setting = dict(
        planning=dict(),
        causal=dict(model=dict(prefix=False)),
        last_layer=dict(fine_tune=dict(iterates=False)),
        oracle_labels=dict(fine_tune=dict(teacher="oracle")),
        two_layers=dict(model=dict(layers=2)),
    )
    c.sweep = config_dict.ConfigDict(dict(setting=setting))
    return c
