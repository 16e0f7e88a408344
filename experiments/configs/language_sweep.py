"""What a pretrained language model is worth: against learners from nothing, on the rows of ever more training tasks.

    python -m experiments.sweep --config=experiments/configs/language_sweep.py --workdir=runs/language_sweep --seeds=3

The whole grid is for a GPU. A part of it:
--sweep distinct_tasks=25,100 --sweep learner=language,small --sweep config.horizon=5

Learners: `language` trains adapters of SmolLM2; `random_weights` trains all weights of the same shape, drawn at random:
the control for pretraining; `small` is the transformer of the other experiments with 0.2 million weights. These
three see the same rows, each task three times (once of 400 tasks and more). `small_looped` reads the rows of the same
tasks, a fifth of which are held out, again and again until the loss on those has stopped falling.

Three learners with 25 and 100 tasks at horizon 5 took 23 minutes of two cores.
"""

from ml_collections import config_dict

from experiments.configs import base, language_energy

HORIZONS = (5, 10, 15)
# Updates of 8 rows: each task three times, twelve times where there are few, once where there are many.
TASKS = {"25": 38, "100": 38, "400": 50, "1600": 200, "3200": 400}


def learners():
    """The settings of each learner, beside those of language_energy."""
    small = dict(layout="transition", weights="", model=base.get_config().model.to_dict(), fine_tune=dict(lora_rank=0))
    small["fine_tune"] |= dict(learning_rate=2e-3, weight_decay=0.01)
    looped = small | dict(
        fine_tune=small["fine_tune"] | dict(steps=2000, validation=0.2, validate_every=25, patience=8, warmup=50)
    )
    return dict(
        language=dict(),
        random_weights=dict(weights_drawn=True, fine_tune=dict(lora_rank=0, learning_rate=3e-4)),
        small=small,
        small_looped=looped,
    )


def distinct_tasks():
    """The number of training tasks, and the updates that go with it; a fifth is held out where a learner validates."""
    return {n: dict(fine_tune=dict(pool=int(n), steps=steps)) for n, steps in TASKS.items()}


def get_config():
    c = language_energy.get_config()
    c.sweep = config_dict.ConfigDict(dict(distinct_tasks=distinct_tasks(), learner=learners(), horizon=HORIZONS))
    return c
