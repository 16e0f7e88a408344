"""Configs, launching and reports; see experiments/run.py and experiments/sweep.py."""
