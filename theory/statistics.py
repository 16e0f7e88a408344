"""Fits that several claims need; `icdm.intervals` has the intervals."""

import numpy as np


def log_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Least-squares slope of log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
