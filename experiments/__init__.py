"""Configs, launching and reports: `python -m experiments.run --config=experiments/configs/demo.py --workdir=runs/demo`."""
