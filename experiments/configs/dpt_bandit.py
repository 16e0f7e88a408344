"""The bandit of DPT (Lee et al., 2023): five Gaussian arms, 25 pulls, from its own 4,000 tasks.

    python -m experiments.run --config=experiments/configs/dpt_bandit.py --workdir=runs/dpt_bandit \
        --config.data=PATH/dpt_bandit_d5_h25.npz

The same work as DPT's: 1,260 steps of batch 64, width 32, 4 layers, 1 head. Rewards enter as numbers. Arms are
permuted again in every sequence. Every prefix is trained, the empty one included. Attention is blind to order.
`fine_tuned` acts from an empty history, so its regret is the online cumulative regret. The learning rate was chosen
by the cross-entropy on every fifth of the 4,000 tasks, which were left out of that training: 1.284 with 3e-3, 1.234
with 6e-3, 1.243 with 1.2e-2 (standard error .02).

Some 35 s of one core.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "bandit"
    c.horizon = 25
    c.problem = dict(arms=5, noise=0.3)
    c.context.episodes = 0
    c.query_behavior = "uniform"
    c.reward_bins = 2
    c.model.update(width=32, layers=4, heads=1, kv_heads=1, hidden=64, rotary_base=0.0)
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=1260, learning_rate=6e-3)
    c.evaluation.update(tasks=200, episodes=10)
    return c
