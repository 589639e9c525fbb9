"""What do soft λ-returns do to SAC? `python experiments/multi_step_sac.py`, a quarter of an hour on 2 cores.

Replayed sequences of 8 steps, 8 of them in a batch, so that every λ sees as many transitions as one-step SAC; 8 seeds
each. Numbers that are in multi_step_sac.csv are kept.
"""

from pathlib import Path

import algorithms
import curves

LAMBDAS = (0.0, 0.5, 0.9, 1.0)
SEQUENCES = {"sequence_length": 8, "batch_size": 8}
TASKS = ("Pendulum", "MountainCarContinuous")

ANSWER = """
# Multi-step SAC

Every λ ends at the same return. On the way there longer returns are no help: on Pendulum learning takes longer from λ =
0.9 on, clearly at λ = 1, and on MountainCarContinuous the averages are lower from 0.9 on, within their intervals. A
part of that is not λ: 8 sequences of 8 steps are 64 transitions that resemble each other, and with λ = 0, which is the
same update, they teach more slowly than 64 single ones. Both tasks have many rewards, or starts from which random
actions have found the goal, so that one-step targets carry values fast enough; what longer returns add there is the
noise of the soft policy's actions. Single transitions stay the default.
"""


def runs() -> list[curves.Run]:
    """One-step SAC on single transitions, and every λ on sequences."""
    found = []
    for task in TASKS:
        found.append(algorithms.make_run(task, "sac", "single transitions"))
        found += [
            algorithms.make_run(task, "sac", f"λ = {x:g}", f"multi_step_sac/lambda-{x:g}", lambda_=x, **SEQUENCES)
            for x in LAMBDAS
        ]
    return found


if __name__ == "__main__":
    curves.main(__doc__, Path(__file__).with_suffix(""), runs(), answer=ANSWER)
