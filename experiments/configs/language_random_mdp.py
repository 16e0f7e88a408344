"""Random MDPs as text: nothing can be memorised, and a context of uniform episodes cannot be copied.

    python -m experiments.sweep --config=experiments/configs/language_random_mdp.py --workdir=runs/language_random_mdp

For every learner of language_sweep, 100 and 400 training tasks, and contexts of 2 oracle, 10 uniform, or 6 episodes of
a mixture of both. With the oracle's own episodes, copying its actions (policy `copy`) is hard to beat.

Six runs with 100 tasks and one seed took 27 minutes of two cores.
"""

from ml_collections import config_dict

from experiments.configs import language_energy, language_sweep

CONTEXTS = dict(
    oracle=dict(context=dict(episodes=2, behavior="oracle"), query_behavior="oracle"),
    uniform=dict(context=dict(episodes=10, behavior="uniform"), query_behavior="mixture"),
    mixed=dict(context=dict(episodes=6, behavior="mixture"), query_behavior="mixture"),
)


def get_config():
    c = language_energy.get_config()
    c.family = "random_mdp"
    c.horizon = 6
    c.problem = dict(states=5, actions=3, discount=1.0, concentration=0.2)
    tasks = language_sweep.distinct_tasks()
    c.sweep = config_dict.ConfigDict(
        dict(
            context=CONTEXTS,
            distinct_tasks={n: tasks[n] for n in ("100", "400")},
            learner=language_sweep.learners(),
        )
    )
    return c
