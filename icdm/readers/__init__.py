"""Deciders that know a task only from the context that they are given."""
