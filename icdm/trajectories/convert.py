"""Moved to `icdm convert`."""

import sys

if __name__ == "__main__":
    sys.exit("python -m icdm.trajectories.convert has moved: use icdm convert")
