"""SAC on soft λ-returns of replayed sequences: `python experiments/multi_step_sac.py`, a quarter of an hour on 2 cores.

Sequences of 8 steps, 8 of them in a batch, so that every λ sees as many transitions as one-step SAC; 8 seeds each.
Numbers that are in multi_step_sac.csv are kept.
"""

from pathlib import Path

import algorithms
import curves

LAMBDAS = (0.0, 0.5, 0.9, 1.0)
TASKS = ("Pendulum", "MountainCarContinuous")

ANSWER = """
# Multi-step SAC

Every λ ends at the same return. On the way there longer returns are no help: on Pendulum learning takes the longer the
larger λ is, and on MountainCarContinuous the averages fall with it, within their intervals. A part of that is not λ: 8
sequences of 8 steps are 64 transitions that resemble each other, and with λ = 0, which is the same update, they teach
more slowly than 64 single ones. Both tasks have many rewards, or starts from which random actions have found the goal,
so that one-step targets carry values fast enough; what longer returns add there is the noise of the soft policy's
actions. Single transitions stay the default.
"""


def cells() -> list[curves.Cell]:
    """One-step SAC on single transitions, and every λ on sequences."""
    sequences = {"sequence_length": 8, "batch_size": 8}
    found = []
    for cell in algorithms.cells():
        if cell.label == "SAC" and cell.task in TASKS:
            found.append(cell._replace(label="single transitions"))
            found += [
                cell._replace(label=f"λ = {lam:g}", settings=cell.settings | sequences | {"lambda_": lam})
                for lam in LAMBDAS
            ]
    return found


if __name__ == "__main__":
    curves.main(
        __doc__ or "", Path(__file__).with_suffix(""), cells(), num_seeds=8, answer=ANSWER, measure=algorithms.train
    )
