"""What was recorded: rollouts with the oracle's Q beside them, and the tokens a transformer reads."""
