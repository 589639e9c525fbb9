"""The tanh-normal distribution in float64, by SciPy and the change of variables."""

from __future__ import annotations

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike


def log_prob_of_pre_tanh(pre_tanh: ArrayLike, mean: ArrayLike, log_std: ArrayLike) -> np.ndarray:
    """log π(tanh u) = Σ [ log N(u; m, s) − log(1 − tanh² u) ], summed over the last axis; for moderate u."""
    pre_tanh, mean, log_std = (np.asarray(x, np.float64) for x in (pre_tanh, mean, log_std))
    normal = scipy.stats.norm.logpdf(pre_tanh, loc=mean, scale=np.exp(log_std))
    return np.sum(normal - np.log1p(-(np.tanh(pre_tanh) ** 2)), axis=-1)


def log_prob_of_distant_pre_tanh(pre_tanh: ArrayLike, mean: ArrayLike, log_std: ArrayLike) -> np.ndarray:
    """The same where tanh² u rounds to 1: log(1 − tanh² u) = log 4 − 2|u| − 2 log(1 + exp(−2|u|))."""
    pre_tanh, mean, log_std = (np.asarray(x, np.float64) for x in (pre_tanh, mean, log_std))
    normal = scipy.stats.norm.logpdf(pre_tanh, loc=mean, scale=np.exp(log_std))
    log_derivative = np.log(4) - 2 * np.abs(pre_tanh) - 2 * np.log1p(np.exp(-2 * np.abs(pre_tanh)))
    return np.sum(normal - log_derivative, axis=-1)
