"""Online n-step learning in a finite MDP: each Q(s, a) moves towards its n-step return once n steps have been made.

    Q(s_t, a_t) ← Q(s_t, a_t) + α (G^(n)_t − Q(s_t, a_t))

G is computed with the present Q, at step t + n. Where an episode ends, all waiting steps move at once, towards shorter
returns. `tree_backup` is the n-step Soft Tree Backup, right for every behaviour; `on_policy` is n-step soft Q-learning,
biased unless the target policy acts. n = 1 is soft Q-learning in both.

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780; on-policy also Schulman et al. 2017, arXiv:1704.06440.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError, nearest, require
from jaxsoft.ops import (
    boltzmann_log_probs,
    kl_divergence,
    n_step_soft_returns,
    soft_tree_backup_returns,
    soft_value,
)
from jaxsoft.tabular.behaviour import Behaviour, Uniform
from jaxsoft.tabular.checks import check_objective
from jaxsoft.tabular.online import (
    NO_LIMIT,
    Experience,
    Learning,
    Objective,
    Rule,
    act_and_learn,
    check_run,
    first_q,
    make_objective,
)

BACKUPS = ("tree_backup", "on_policy")
"""The n-step returns to learn from."""


@struct.dataclass
class Window:
    """The steps that wait for their return, oldest first, newest last.

    Attributes:
        steps: every field [n].
        num_waiting: [], int32; the last so many of them wait, all of one episode.
    """

    steps: Experience
    num_waiting: jax.Array


def n_step_soft_q(
    key: jax.Array,
    mdp: FiniteMDP,
    *,
    n: int,
    num_steps: int,
    temperature: float | jax.Array,
    step_size: float | jax.Array,
    backup: str = "tree_backup",
    behaviour: Behaviour | None = None,
    reference_log_probs: jax.Array | None = None,
    half_life: float | jax.Array = jnp.inf,
    max_episode_steps: int | jax.Array = NO_LIMIT,
    num_records: int = 1,
    initial_q: jax.Array | None = None,
) -> Learning:
    """Acts in a finite MDP and learns from n-step returns.

    It vmaps over keys and over every number and array it is given; sizes and names are static.

    Args:
        key: of this seed.
        mdp: the process to act in.
        n: steps of a return.
        num_steps: environment steps; the last n − 1 move nothing unless an episode ends.
        temperature: [], τ > 0.
        step_size: [], α, above 0 and at most 1.
        backup: `tree_backup` or `on_policy`.
        behaviour: who acts, see `jaxsoft.tabular.behaviour`; by default every action alike.
        reference_log_probs: [S, A], log π0; uniform by default.
        half_life: [], steps after which the step size is half as large: α_t = α / (1 + t / half_life).
        max_episode_steps: [], time limit, a truncation; by default none.
        num_records: snapshots of Q to keep, a divisor of `num_steps`.
        initial_q: [S, A]; zeros by default.

    Raises:
        InputError: a number out of range, a reference that forbids every action, an unknown backup, or records that
            do not divide the steps.
    """
    if backup not in BACKUPS:
        raise InputError(f"unknown backup {backup!r}{nearest(backup, BACKUPS)} (there are: {', '.join(BACKUPS)})")
    require("n", n, lambda x: x >= 1, "a positive integer")
    behaviour = Uniform() if behaviour is None else behaviour
    check_run(mdp, behaviour, num_steps, num_records, max_episode_steps)
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    q = first_q((mdp.num_states, mdp.num_actions), initial_q, mdp.rewards.dtype)
    objective = make_objective(
        q,
        reference_log_probs,
        discount=mdp.discount,
        temperature=temperature,
        lambda_=1.0,
        step_size=step_size,
        half_life=half_life,
    )
    limit = jnp.asarray(max_episode_steps, jnp.int32)
    rule = window_rule(backup, n)
    return act_and_learn(
        key, mdp, objective, behaviour, limit, q, rule=rule, num_steps=num_steps, num_records=num_records
    )


@cache  # one rule per method: what is compiled for it is found again
def window_rule(backup: str, n: int) -> Rule:
    """Learning from n-step returns of this backup; its memory is the `Window` of waiting steps."""
    return Rule(partial(_empty, n=n), partial(update, backup=backup))


def update(
    objective: Objective,
    q: jax.Array,
    window: Window,
    experience: Experience,
    step_size: jax.Array,
    *,
    backup: str,
) -> tuple[jax.Array, Window]:
    """One step: it joins the window, and the steps whose return is complete move Q, see the module's equation.

    Args:
        objective: what is learned.
        q: [S, A].
        window: the steps that wait.
        experience: one step.
        step_size: [], α of this step.
        backup: `tree_backup` or `on_policy`.

    Returns:
        Q [S, A] and the window after the step.
    """
    steps = jax.tree.map(lambda old, new: jnp.append(old[1:], new), window.steps, experience)
    n = len(steps.state)
    num_waiting = jnp.minimum(window.num_waiting + 1, n)
    done = experience.terminated | experience.truncated
    position = jnp.arange(n)
    complete = (position >= n - num_waiting) & (done | (position == 0))
    errors = window_returns(objective, q, steps, backup=backup) - q[steps.state, steps.action]
    q = q.at[steps.state, steps.action].add(jnp.where(complete, step_size * errors, 0))
    return q, Window(steps, jnp.where(done, 0, num_waiting - complete[0]))


def window_returns(objective: Objective, q: jax.Array, steps: Experience, *, backup: str) -> jax.Array:
    """Returns of consecutive steps of one episode, each as long as the steps after it allow.

    Args:
        objective: what is learned.
        q: [S, A], the present Q.
        steps: every field [n].
        backup: `tree_backup` or `on_policy`.

    Returns:
        [n], G^(n−i) of step i.
    """
    n = len(steps.state)
    discount = jnp.where(steps.terminated, 0, objective.discount)
    next_q, reference = q[steps.next_state], objective.reference_log_probs[steps.next_state]
    next_v = soft_value(next_q, reference, objective.temperature)
    log_pi = boltzmann_log_probs(next_q, reference, objective.temperature)
    if backup == "on_policy":
        kl = kl_divergence(log_pi, reference)
        return n_step_soft_returns(steps.reward, discount, next_v, kl, objective.temperature, n)
    taken = jnp.arange(n), jnp.roll(steps.action, -1)  # the next step's action in its state; the last is not used
    return soft_tree_backup_returns(steps.reward, discount, next_v, next_q[taken], jnp.exp(log_pi[taken]), n)


def _empty(q: jax.Array, *, n: int) -> Window:
    zeros = jnp.zeros(n, jnp.int32)
    steps = Experience(zeros, zeros, jnp.zeros(n, q.dtype), zeros, zeros > 0, zeros > 0, jnp.zeros(n, q.dtype))
    return Window(steps, jnp.int32(0))
