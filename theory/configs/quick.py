"""Every claim at a size that two CPU cores check in less than four minutes."""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.linear_q = config_dict.create(problems=64, states=12, actions=4, dimension=5, horizon=8, seed=0)
    config.lsa_optimum = config_dict.create(
        dimension=3, condition=4.0, n=10, noises=(0.0, 0.5), starts=2, start_scale=0.5, seeds=5, steps=2000, batch=256,
        learning_rate=0.01, seed=0,
    )
    config.two_errors = config_dict.create(
        dimensions=(2, 5, 10), conditions=(1.0, 4.0, 16.0), prompts=6000, seed=0,
        lengths=((20, 20), (20, 80), (80, 20), (80, 80), (320, 40), (40, 160), (160, 160)),
    )
    config.slopes = config_dict.create(
        dimension=5, condition=4.0, test_lengths=(20, 40, 80, 160, 320, 640), training_lengths_in_d=(40, 80, 160, 320, 640, 1280),
        short_lengths=(20, 40, 80, 160, 320, 640), prompts=20000, seed=0,
    )
    config.shift = config_dict.create(dimension=5, condition=4.0, length=640, prompts=6000, scales=(0.5, 1.5, 2.0), seed=0)
    return config
