"""Every claim at a size that two CPU cores check in some six minutes; many intervals are then too wide to decide."""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.linear_q = config_dict.create(problems=64, states=12, actions=4, dimension=5, horizon=8, seed=0)
    config.lsa_optimum = config_dict.create(
        dimension=3,
        condition=4.0,
        n=10,
        noises=(0.0, 0.5),
        starts=2,
        start_scale=0.5,
        seeds=5,
        steps=1500,
        batch=256,
        learning_rate=0.02,
        seed=0,
    )
    config.two_errors = config_dict.create(
        dimensions=(2, 5, 10),
        conditions=(1.0, 4.0, 16.0),
        prompts=4000,
        seed=0,
        lengths=((20, 20), (20, 80), (80, 20), (80, 80), (320, 40), (40, 160), (160, 160)),
    )
    config.slopes = config_dict.create(
        dimension=5,
        condition=4.0,
        test_lengths=(20, 40, 80, 160, 320, 640),
        training_lengths_in_d=(40, 80, 160, 320, 640, 1280),
        short_lengths=(20, 40, 80, 160, 320, 640),
        prompts=20000,
        seed=0,
    )
    config.shift = config_dict.create(
        dimension=5, condition=4.0, length=320, prompts=6000, scales=(0.5, 1.5, 2.0), seed=0
    )
    config.suboptimality = config_dict.create(
        problems=400,
        states=10,
        actions=4,
        dimension=5,
        horizon=5,
        feature_seed=0,
        seed=0,
        training_lengths=(20, 80, 320),
        test_lengths=(20, 80, 320, 1280),
    )
    config.sample_complexity = config_dict.create(
        problems=400,
        states=10,
        actions=4,
        dimension=4,
        horizon=4,
        feature_seed=0,
        seed=0,
        deltas=tuple(2.0**k for k in range(-13, 2)),
        test_episodes=(100, 200, 400, 800, 1600, 3200),
        training_episodes=(100, 200, 400, 800, 1600, 3200),
    )
    config.trajectory_data = config_dict.create(
        states=6,
        actions=2,
        dimension=3,
        n=20,
        stickiness=(0.0, 0.5, 0.8, 0.95),
        trajectories=20000,
        tables=400,
        seed=0,
    )
    config.td_exact = config_dict.create(
        dimension=3, n=100, layers=40, trials=30, discount=0.9, trace=0.7, step=0.3, seed=0
    )
    config.td_emerges = config_dict.create(
        dimension=4,
        states=10,
        n=30,
        layers=3,
        discount=0.9,
        processes=4000,
        walks=1,
        windows=16,
        seeds=10,
        checkpoints=20,
        test_processes=64,
        start_scale=0.033,
        learning_rate=0.004,
        seed=0,
    )
    config.control_exact = config_dict.create(
        dimension=4,
        actions=4,
        states=6,
        n=40,
        layers=30,
        trials=30,
        discount=0.9,
        step=0.5,
        betas=(10.0, 100.0, 1000.0, 10000.0),
        seed=0,
    )
    trained = dict(
        runs="",  # a folder of trained runs; "" is WORKDIR/runs
        experiment="trained_small",
        variants=("transition",),
        seeds=3,
        tasks=600,
        seed=0,
    )
    config.logits_are_q = config_dict.create(**trained, draws=32)
    config.attention_reads_returns = config_dict.create(**trained, permutations=1000)
    config.q_is_decodable = config_dict.create(**trained, ridges=(0.01, 0.1, 1.0))
    config.q_is_used = config_dict.create(**trained, heads=1, head_sets=3)
    config.influence_is_bayes = config_dict.create(run="tabular", tasks=128, distances=2, seed=0)
    config.values_are_cached = config_dict.create(run="tabular", tasks=64, seed=0)
    config.values_can_be_swapped = config_dict.create(run="tabular", tasks=64, seed=0)
    config.logits_by_position = config_dict.create(run="tabular", tasks=64, seed=0)
    config.layers_hold_iterates = config_dict.create(run="tabular", tasks=256, ridges=(0.01, 0.1, 1.0), seed=0)
    return config
