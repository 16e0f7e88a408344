"""In-context decision making: from a decision problem to its optimality gap."""

__version__ = "0.1.0"
