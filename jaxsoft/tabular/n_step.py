"""Online n-step learning in a finite MDP: each Q(s, a) moves towards its n-step return once n steps have been made.

    Q(s_t, a_t) ← Q(s_t, a_t) + α (G^(n)_t − Q(s_t, a_t))

G is computed with the present Q, at step t + n. Where an episode ends, all waiting steps move at once, towards shorter
returns. `tree_backup` is the n-step Soft Tree Backup, without bias for every behaviour (when it converges, `ops.traces`
says); `on_policy` is n-step soft Q-learning, biased unless the target policy acts, with one of the two penalties of
`kl_penalty`. n = 1 is soft Q-learning in both.

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780; on-policy also Schulman et al. 2017, arXiv:1704.06440.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError, nearest, require
from jaxsoft.ops import boltzmann_log_probs, kl_penalty, n_step_soft_returns, soft_tree_backup_returns, soft_value
from jaxsoft.ops.soft import check_penalty
from jaxsoft.tabular.online import Learning, Rule, act_and_learn, learn_recorded
from jaxsoft.tabular.settings import LearnerSettings
from jaxsoft.tabular.walk import TabularTransition

BACKUPS = ("tree_backup", "on_policy")
"""The n-step returns to learn from."""


@struct.dataclass
class Window:
    """The steps that wait for their return, oldest first, newest last.

    Attributes:
        steps: every field [n].
        num_waiting: [], int32; the last so many of them wait, all of one episode.
    """

    steps: TabularTransition
    num_waiting: jax.Array


def n_step_soft_q(
    key: jax.Array,
    mdp: FiniteMDP,
    *,
    n: int,
    backup: str = "tree_backup",
    penalty: str = "full",
    **settings: Any,
) -> Learning:
    """Acts in a finite MDP and learns from n-step returns; the last n − 1 steps move nothing unless an episode ends.

    It vmaps over keys and over every number and array it is given; sizes and names are static.

    Args:
        key: of this seed.
        mdp: the process to act in.
        n: steps of a return.
        backup: `tree_backup` or `on_policy`.
        penalty: of `on_policy`, `full` or `sampled`, see `kl_penalty`.
        **settings: `num_steps`, `temperature`, `step_size`; all others of `LearnerSettings` have defaults.

    Raises:
        InputError: a number out of range, a reference that forbids every action, an unknown backup or penalty, or
            records that do not divide the steps.
    """
    return act_and_learn(key, mdp, window_rule(backup, n, penalty), LearnerSettings(**settings))


def n_step_soft_q_from_transitions(
    transitions: TabularTransition, *, n: int, backup: str = "tree_backup", penalty: str = "full", **settings: Any
) -> Learning:
    """n-step learning from recorded transitions: the same updates, in the order in which the steps were made.

    A step whose state is not the successor of the step before must follow one that terminated or was truncated.

    Args:
        transitions: every field [T]; `log_mu` is not used.
        n: steps of a return.
        backup: `tree_backup`, or `on_policy` where the target policy itself has acted.
        penalty: of `on_policy`, `full` or `sampled`, see `kl_penalty`.
        **settings: `discount`, `temperature`, `step_size`, `reference_log_probs` (its shape is the table's);
            `half_life`, `initial_q`, `num_records`: see `LearnerSettings`.

    Raises:
        InputError: as `n_step_soft_q`.
    """
    return learn_recorded(transitions, window_rule(backup, n, penalty), LearnerSettings(**settings))


@cache  # one rule per method: what is compiled for it is found again
def window_rule(backup: str, n: int, penalty: str = "full") -> Rule:
    """Learning from n-step returns of this backup; its memory is the `Window` of waiting steps.

    Raises:
        InputError: an unknown backup or penalty, a penalty that the backup does not have, or n is less than 1.
    """
    if backup not in BACKUPS:
        raise InputError(f"unknown backup {backup!r}{nearest(backup, BACKUPS)} (there are: {', '.join(BACKUPS)})")
    check_penalty(penalty)
    if penalty == "sampled" and backup != "on_policy":
        raise InputError(f"penalty is {penalty}, which {backup} has no use for; with on_policy it may be {penalty}")
    require("n", n, lambda x: x >= 1, "a positive integer")
    return Rule(partial(_empty, n=n), partial(update, backup=backup, penalty=penalty))


def update(
    settings: LearnerSettings,
    q: jax.Array,
    window: Window,
    transition: TabularTransition,
    step_size: jax.Array,
    *,
    backup: str,
    penalty: str,
) -> tuple[jax.Array, Window]:
    """One step: it joins the window, and the steps whose return is complete move Q, see the module's equation.

    Its memory, see `Rule`, is the window; backup and penalty are those of `window_rule`.
    """
    step = replace(transition, log_mu=None)  # these returns do not ask who acted
    steps = jax.tree.map(lambda old, new: jnp.append(old[1:], new), window.steps, step)
    n = len(steps.state)
    num_waiting = jnp.minimum(window.num_waiting + 1, n)
    position = jnp.arange(n)
    complete = (position >= n - num_waiting) & (transition.done | (position == 0))
    errors = window_returns(settings, q, steps, backup=backup, penalty=penalty) - q[steps.state, steps.action]
    q = q.at[steps.state, steps.action].add(jnp.where(complete, step_size * errors, 0))
    return q, Window(steps, jnp.where(transition.done, 0, num_waiting - complete[0]))


def window_returns(
    settings: LearnerSettings, q: jax.Array, steps: TabularTransition, *, backup: str, penalty: str
) -> jax.Array:
    """Returns of consecutive steps [n] of one episode by the present Q, each as long as the steps after it allow.

    That of step i is G^(n−i).
    """
    n = len(steps.state)
    discount = jnp.where(steps.terminated, 0, settings.discount)
    next_q, reference = q[steps.next_state], settings.reference_log_probs[steps.next_state]
    next_v = soft_value(next_q, reference, settings.temperature)
    log_pi = boltzmann_log_probs(next_q, reference, settings.temperature)
    next_action = jnp.roll(steps.action, -1)  # in the next step's state; the last is not used
    if backup == "on_policy":
        kl = kl_penalty(penalty, log_pi, reference, next_action)
        return n_step_soft_returns(steps.reward, discount, next_v, kl, settings.temperature, n)
    taken = jnp.arange(n), next_action
    return soft_tree_backup_returns(steps.reward, discount, next_v, next_q[taken], jnp.exp(log_pi[taken]), n)


def _empty(q: jax.Array, *, n: int) -> Window:
    zeros = jnp.zeros(n, jnp.int32)
    return Window(TabularTransition(zeros, zeros, jnp.zeros(n, q.dtype), zeros, zeros > 0, zeros > 0), jnp.int32(0))
