"""Every field with its default, from `icdm.runs.settings.defaults`; the other configs say where they differ."""

from ml_collections import config_dict

from icdm.runs.settings import defaults


def get_config():
    return config_dict.ConfigDict(defaults())
