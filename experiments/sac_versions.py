"""Which differences between SAC's two versions matter? `python experiments/sac_versions.py`, 15 minutes on 2 cores.

The first has a value network and a fixed temperature; the second has none, and learns its temperature or, to tell the
two differences apart, keeps it where the first has it. 8 seeds each. Numbers that are in sac_versions.csv are kept.
"""

from functools import partial
from pathlib import Path

import algorithms
import curves

TEMPERATURES = {"Pendulum": 0.2, "MountainCarContinuous": 0.1, "inverted pendulum": 0.2}

ANSWER = """
# SAC's two versions

On Pendulum and MountainCarContinuous the three cannot be told apart: the same fixed temperature leads both versions to
the same returns, and a learned temperature ends about where a good fixed one does, and spares the search for it. On the
inverted pendulum, at a learning rate chosen for the second version, the first looks slower and less steady, 821 [506,
1000] at the end against 1000 [732, 1000] of the second at the same temperature; but eight seeds do not tell them apart.
"""


def runs() -> list[curves.Run]:
    """Three learners in every task."""
    found = []
    for task, temperature in TEMPERATURES.items():
        at_fixed = partial(algorithms.make_run, task, folder="sac_versions", temperature=temperature)
        found += [
            at_fixed("sac_v1", "v1"),
            at_fixed("sac", "v2 with v1's temperature", learn_temperature=False),
            algorithms.make_run(task, "sac", "v2"),
        ]
    return found


if __name__ == "__main__":
    curves.main(__doc__, Path(__file__).with_suffix(""), runs(), answer=ANSWER)
