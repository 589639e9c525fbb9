"""How often does the interval of an interquartile mean cover the truth? Draws returns from known distributions.

    python benchmarks/coverage.py       # writes benchmarks/coverage.md; some minutes

Each entry is a share of `NUM_TRIALS` samples; what it is to be, 95 %, has a standard error of 0.5 % of chance alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxsoft.reports.statistics import FEWEST, TRIMMED, iqm_interval

SIZES = (2, 3, 4, 5, 6, 7, 8, 16, 64)
NUM_TRIALS = 2000

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def mixed(share: float, low: float) -> Draw:
    """Most returns are N(10, 1); a share of them is N(low, 1), or −∞ where `low` is."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        mean = np.where(rng.random(shape) < share, low, 10.0)
        return mean + rng.normal(size=shape)

    return draw


RETURNS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "heavy tails (Student's t, 3 degrees of freedom)": lambda rng, shape: rng.standard_t(3, shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape),
    "skewed (its negative)": lambda rng, shape: -rng.exponential(size=shape),
    "very skewed (log-normal, σ = 1)": lambda rng, shape: rng.lognormal(size=shape),
    "at most 500, two in five reach it": lambda rng, shape: np.minimum(500, rng.normal(490, 40, shape)),
    "one seed in ten is bad": mixed(0.1, 0.0),
    "one in five is bad": mixed(0.2, 0.0),
    "three in ten are bad": mixed(0.3, 0.0),
    "half of them are bad": mixed(0.5, 0.0),
    "one in ten fails (−∞)": mixed(0.1, -np.inf),
    "one in five fails": mixed(0.2, -np.inf),
    "three in ten fail (the truth is −∞)": mixed(0.3, -np.inf),
}


def truth(draw: Draw) -> float:
    """The interquartile mean of the distribution, from four million draws."""
    ordered = np.sort(draw(np.random.default_rng(0), (4_000_000,)))
    cut = int(TRIMMED * len(ordered))
    return float(ordered[cut:-cut].mean())


def coverage(draw: Draw, true: float, num_seeds: int, num_trials: int = NUM_TRIALS) -> float:
    """The share of samples of `num_seeds` whose interval holds the truth; below five seeds that of min – max."""
    samples = draw(np.random.default_rng(num_seeds), (num_trials, num_seeds))
    intervals = (iqm_interval(sample) for sample in samples)
    return float(np.mean([interval.low <= true <= interval.high for interval in intervals]))


def main() -> None:
    lines = [
        "How often the 95 % interval of an interquartile mean holds that of all seeds there could be, in percent of",
        f"{NUM_TRIALS:,} samples; below {FEWEST} seeds how often the smallest and the largest return do. Made by "
        "`python benchmarks/coverage.py`.",
        "",
        "Of 8 and more seeds it is 93 to 97; where three in ten fail, 92 to 99. With 5 seeds it is 92 to 94, with 6",
        "and 7 94 to 98, and 84 to 91 where three in ten are bad or fail: so few seeds often have one such, or none.",
        "",
        f"| returns \\ seeds | {' | '.join(map(str, SIZES))} |",
        f"|---|{'--:|' * len(SIZES)}",
    ]
    for name, draw in RETURNS.items():
        true = truth(draw)
        shares = [100 * coverage(draw, true, num_seeds) for num_seeds in SIZES]
        lines.append(f"| {name} | {' | '.join(f'{share:.1f}' for share in shares)} |")
        print(lines[-1], flush=True)
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
