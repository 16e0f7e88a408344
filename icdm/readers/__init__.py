"""Deciders that know a task only from a context."""
