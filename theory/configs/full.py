"""The full grids: every claim at the size that its statement needs, over all of JAX's devices."""

from ml_collections import config_dict

from theory.configs import depth, quick


def get_config():
    config = quick.get_config()
    config.linear_q.update(problems=512, states=30, actions=5, dimension=8, horizon=12)
    config.lsa_optimum.update(steps=4000)
    config.two_errors.update(
        dimensions=(2, 5, 10, 20),
        conditions=(1.0, 4.0, 16.0, 64.0),
        prompts=20_000,
        lengths=(
            (20, 20),
            (20, 80),
            (80, 20),
            (80, 80),
            (320, 40),
            (40, 320),
            (320, 320),
            (640, 160),
            (160, 640),
        ),
    )
    config.slopes.update(prompts=200_000)
    config.shift.update(length=640, prompts=100_000)
    config.suboptimality.update(
        problems=4000, training_lengths=(20, 80, 320, 1280), test_lengths=(20, 80, 320, 1280, 5120)
    )
    config.sample_complexity.update(problems=4000)
    config.trajectory_data.update(trajectories=200_000, tables=4000)
    config.td_exact.update(trials=300)
    config.td_emerges.update(processes=12_000, seeds=16)
    config.control_exact.update(trials=300)
    config.update(depth.get_config())
    planning = dict(runs="", experiment="trained_planning", variants=("transition",), seeds=3, tasks=1000, seed=0)
    config.influence_is_bayes = config_dict.create(**planning, distances=4)
    config.values_are_cached = config_dict.create(**planning)
    config.values_can_be_swapped = config_dict.create(**planning)
    planning |= dict(seed=1)  # these two were tried out on tasks of seed 0
    config.logits_by_position = config_dict.create(**planning)
    config.layers_hold_iterates = config_dict.create(**planning, ridges=(0.01, 0.1, 1.0))
    return config
