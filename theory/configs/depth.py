"""The two claims about depth and loops, whose runs take some 20 minutes of a core: theory/configs/trained_depth.py."""

from ml_collections import config_dict


def get_config():
    trained = dict(runs="", experiment="trained_depth", seeds=1, tasks=1000, seed=1)
    config = config_dict.ConfigDict()
    config.depth_buys_planning = config_dict.create(**trained, variants=("1", "2", "4", "8"), distances=6)
    config.loops_iterate_values = config_dict.create(
        **trained, variants=("loops", "8"), loops=(1, 2, 3, 4, 6, 8, 16, 32)
    )
    return config
