"""The runs in which planning is looked into: the config `planning`, in which myopic readers are far behind."""

from experiments.configs import planning


def get_config(layout="transition"):
    c = planning.get_config()
    c.layout = layout
    return c
