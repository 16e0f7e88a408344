"""Partially observed and ambiguous problems, nested over the MDP."""
