"""Does pretraining help? Interleaved tokens on random MDPs, against training from scratch on equally many tokens.

python -m experiments.run --config=experiments/configs/pretraining.py --workdir=runs/pretraining
"""

from experiments.configs import random_mdp


def get_config():
    c = random_mdp.get_config()
    c.layout = "interleaved"
    c.context.episodes = 4
    c.model.update(mixing=2, rotary_base=10_000.0)
    c.pretrain.update(steps=500, batch=32)
    c.fine_tune.update(steps=1000, batch=32)
    c.from_scratch = True
    c.evaluation.update(tasks=2000, episodes=2)
    return c
