"""When do λ-returns converge for control? `python experiments/convergence.py` writes convergence.md, 2 minutes.

The expected operator of Soft Q(λ) on finite MDPs, from its definition, in float64 and for many processes at once:

    T Q = Q + (I − γ λ P c μ)⁻¹ (r + γ P V_Q − Q),    Q ← Q + α (T Q − Q)
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pages import table

from jaxsoft.ops.traces import TRACES

PAGE = Path(__file__).with_suffix(".md")
DISCOUNT, TEMPERATURE = 0.95, 0.05
NUM_MDPS, NUM_BACKUPS = 1_000, 1_000
DIVERGED = 1e6
"""Far above every value that there is."""


class Processes(NamedTuple):
    """Deterministic MDPs [n, S, A], and who acts in them; the reference policy is uniform."""

    next_state: np.ndarray
    reward: np.ndarray
    behaviour: np.ndarray


SMALL = Processes(
    np.array([[[0, 1], [0, 0]]]), np.array([[[0.0, 0.0], [1.0, 0.0]]]), np.array([[[0.9, 0.1], [0.1, 0.9]]])
)
"""State 0: stay, or go to state 1. State 1: back either way, with reward 1 or without."""

STAY = np.array([[[10.0, 0.0], [0.0, 0.0]]])


def value_and_policy(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    highest = q.max(-1, keepdims=True)
    weights = np.exp((q - highest) / TEMPERATURE)
    return highest[..., 0] + TEMPERATURE * np.log(weights.mean(-1)), weights / weights.sum(-1, keepdims=True)


def backup(processes: Processes, q: np.ndarray, trace: str, lambda_: float) -> np.ndarray:
    n, num_states, num_actions = q.shape
    v, pi = value_and_policy(q)
    mu = processes.behaviour
    kept = {  # μ c
        "tree_backup": mu * pi,
        "retrace": np.minimum(mu, pi),
        "importance_sampling": pi,
        "uncorrected": mu,
        "watkins": mu * (pi == pi.max(-1, keepdims=True)),
    }[trace]
    moves = np.eye(num_states)[processes.next_state]  # [n, S, A, S']
    errors = processes.reward + DISCOUNT * np.einsum("nsaz,nz->nsa", moves, v) - q
    pairs = num_states * num_actions
    carried = np.einsum("nsaz,nzb->nsazb", moves, kept).reshape(n, pairs, pairs)
    solved = np.linalg.solve(np.eye(pairs) - DISCOUNT * lambda_ * carried, errors.reshape(n, pairs, 1))
    return q + solved.reshape(q.shape)


def iterate(processes: Processes, q: np.ndarray, trace: str, lambda_: float, step_size: float) -> np.ndarray:
    """The last three of many iterates, [3, n, S, A]."""
    last = [q]
    with np.errstate(over="ignore", invalid="ignore"):  # of those that diverge
        for _ in range(NUM_BACKUPS):
            last = [*last[-2:], last[-1] + step_size * (backup(processes, last[-1], trace, lambda_) - last[-1])]
    return np.stack(last)


def random_processes() -> Processes:
    rng = np.random.default_rng(0)
    shape = NUM_MDPS, 3, 2
    return Processes(rng.integers(3, size=shape), rng.normal(size=shape), rng.dirichlet([0.3, 0.3], shape[:2]))


def verdict(last: np.ndarray) -> str:
    if not np.abs(last[2]).max() < DIVERGED:
        return "diverges"
    if np.abs(last[2] - last[1]).max() < 1e-6:
        return "converges"
    return "period 2" if np.abs(last[2] - last[0]).max() < 1e-6 else "neither"


def small_tables() -> list[str]:
    cycle, still = (iterate(SMALL, STAY, "tree_backup", 1.0, step_size) for step_size in (1.0, 0.5))
    found = {"full steps, every other backup": cycle[1], "and those between": cycle[2], "Q*": still[2]}
    rows = [(name, *(f"{x:.3f}" for x in (*q.ravel(), value_and_policy(q)[1][0, 0, 1]))) for name, q in found.items()]
    lines = table(("", "Q(0, stay)", "Q(0, go)", "Q(1, reward)", "Q(1, none)", "π(go)"), rows)
    zeros = np.zeros_like(STAY)
    negative = SMALL._replace(reward=SMALL.reward - 2)
    cases = [(f"10 for staying, else 0; α = {a}, λ = {x}", SMALL, STAY, a, x) for a, x in ((1, 1), (1, 0.7), (0.5, 1))]
    cases += [
        ("0 everywhere; α = 1, λ = 1", SMALL, zeros, 1, 1),
        ("−20 everywhere; α = 1, λ = 1", SMALL, zeros - 20, 1, 1),
        ("all rewards less by 2: 0 everywhere; α = 1, λ = 1", negative, zeros, 1, 1),
        ("all rewards less by 2: 0 everywhere; α = 0.5, λ = 1", negative, zeros, 0.5, 1),
        ("all rewards less by 2: −100 everywhere; α = 1, λ = 1", negative, zeros - 100, 1, 1),
    ]
    rows = [
        (name, *(verdict(iterate(processes, q, trace, lambda_, step_size)) for trace in TRACES))
        for name, processes, q, step_size, lambda_ in cases
    ]
    return [*lines, "", *table(("first Q, step size", *TRACES), rows, num_words=1 + len(TRACES))]


def random_table() -> list[str]:
    processes = random_processes()
    q = 10 * np.random.default_rng(1).normal(size=processes.reward.shape)
    least = processes.reward.min((1, 2), keepdims=True) / (1 - DISCOUNT)
    even = processes._replace(behaviour=np.full_like(processes.behaviour, 0.5))
    starts = {
        "random Q, α = 1": (processes, q, 1.0),
        "random Q, α = 0.5": (processes, q, 0.5),
        "Q = 0, α = 1": (processes, 0 * q, 1.0),
        "Q = min r/(1 − γ), α = 1": (processes, 0 * q + least, 1.0),
        "uniform behaviour, random Q, α = 1": (even, q, 1.0),
    }
    rows = []
    for trace, lambda_ in itertools.product(TRACES, (1.0, 0.9, 0.7)):
        ends = [iterate(acting, first, trace, lambda_, step_size) for acting, first, step_size in starts.values()]
        rows.append((trace, f"{lambda_:g}", *map(restless, ends)))
    return table((f"of {NUM_MDPS:,}", "λ", *starts), rows)


def restless(last: np.ndarray) -> str:
    """How many processes do not come to rest, and of these how many diverge, if any."""
    moves = ~(np.abs(last[2] - last[1]).max((1, 2)) <= 1e-6)
    diverges = ~(np.abs(last[2]).max((1, 2)) < DIVERGED)
    return f"{moves.sum()}" + f" ({diverges.sum()})" * bool(diverges.any())


TEXT = """\
# When λ-returns converge for control

A trace coefficient 0 ≤ c ≤ π/μ makes the evaluation of a fixed policy a contraction, whoever acts. In control π moves
with Q, and that is not enough: iterating even the *expected* λ-return with full steps can cycle for ever. Made by
`python experiments/convergence.py`; `tests/tabular/test_convergence.py` shows the same with the library's operators.

## A process of two states that cycles

In state 0 one can stay, or go to state 1; from state 1 one comes back, with reward 1 or without. The behaviour stays
with probability 0.9 and takes the reward with probability 0.1; γ = 0.95, τ = 0.05, λ = 1, the reference is uniform. To
go and to take the reward is best. A first Q that believes in staying (10, and 0 elsewhere) ends in

{small}

Where the policy stays, the behaviour does so, too, and the trace is kept: one backup takes from staying all that it
was wrongly believed to be worth. Where the policy goes, the behaviour rarely does, and the trace is cut: one backup
hands on what was believed of the next state before, and staying is worth about γ times the value of going again. Each
backup corrects a policy that the last one has just left. Smaller steps mix the two.

A *pessimistic* Q, one that its own backup nowhere lowers (T Q ≥ Q), converges with full steps where c ≤ π/μ. Q = 0 is
pessimistic where no reward is negative, as above, but is no safe start as such: with all rewards less by 2 it cycles.

Importance sampling does not cycle: μ c = π, so that at λ = 1 its expected backup is the whole evaluation of π, and
iterating it is soft policy iteration, which converges. Its price is the variance of samples, which is not seen here.

## How often?

{num_mdps:,} random deterministic processes of 3 states and 2 actions (rewards N(0, 1), behaviours Dirichlet(0.3), which
are far from uniform), a random first Q of N(0, 10²), {num_backups:,}
backups: how many do not come to rest, and in brackets how many of these diverge.

{random}

`uncorrected` is the only one that diverges, half steps and a pessimistic start notwithstanding. Watkins's cut cycles
somewhat more often than the coefficients that π/μ bounds, now and then with half steps and from below, too. Under a
uniform behaviour nothing cycled.

Learners online take small steps of single samples; decreasing ones have converged in all that was tried
(`tests/tabular/test_online.py`).
"""


def main() -> None:
    page = TEXT.format(
        small="\n".join(small_tables()), random="\n".join(random_table()), num_mdps=NUM_MDPS, num_backups=NUM_BACKUPS
    )
    PAGE.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
