"""The claims about depth and loops, and claims 12-15 in the deep ones of the same models.

The runs are those of theory/configs/trained_depth.py. Training takes some 90 minutes of a core.
"""

from ml_collections import config_dict


def get_config():
    trained = dict(runs="", experiment="trained_depth", seeds=1, tasks=1000, seed=1)
    config = config_dict.ConfigDict()
    config.depth_buys_planning = config_dict.create(**trained, variants=("1", "2", "4", "8"), distances=6)
    config.loops_iterate_values = config_dict.create(
        **trained, variants=("loops", "8"), loops=(1, 2, 3, 4, 6, 8, 16, 32)
    )
    deep = trained | dict(variants=("4", "8"))
    config.logits_are_q = config_dict.create(**deep, draws=100)
    config.attention_reads_returns = config_dict.create(**deep, permutations=1000)
    config.q_is_decodable = config_dict.create(**deep, ridges=(0.01, 0.1, 1.0))
    config.q_is_used = config_dict.create(**deep, heads=2, head_sets=8)
    return config
