"""Moved to `icdm describe`."""

import sys

if __name__ == "__main__":
    sys.exit("python -m icdm.trajectories.describe has moved: use icdm describe")
