"""How well it decides: every decider on the same tasks, every number with an interval."""
