"""Families of decision problems, one file each: what the tasks are, how they are drawn, and their source."""
