"""Policies' distributions over actions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.ops import entropy
from jaxsoft.ops.reductions import argmax_last, sum_last, take_last
from jaxsoft.types import Choice

_LOG_2 = 0.6931471805599453
_HALF_LOG_2_PI = 0.9189385332046727


@struct.dataclass
class TanhNormal:
    """A diagonal normal distribution squashed by tanh into (−1, 1).

        a = tanh(u),  u ~ N(m, s²)
        log π(a) = Σ_i [ log N(u_i; m_i, s_i) − 2 (log 2 − u_i − softplus(−2 u_i)) ]

    The second term is log(1 − tanh²u), written so that it stays finite for every u (Haarnoja et al. 2018a,
    arXiv:1801.01290, appendix C). The density is that of actions in (−1, 1): scaling to an environment's
    bounds lies outside it.

    Attributes:
        mean: [..., dim], m.
        log_std: [..., dim], log s.
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A reparameterised action [..., dim] in (−1, 1) and its log-probability [...]."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        pre_tanh = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(pre_tanh), self._log_prob(noise, pre_tanh)

    def choose(self, key: jax.Array) -> Choice:
        """A draw to store: its log-density is computed from u, as later policies will compute theirs."""
        pre_tanh = self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return Choice(jnp.tanh(pre_tanh), self.log_prob_of_pre_tanh(pre_tanh), pre_tanh)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-density [...] of actions [..., dim]; those on the bounds count as the nearest inside."""
        return self.log_prob_of_pre_tanh(pre_tanh(action))

    def log_prob_of_pre_tanh(self, pre_tanh: jax.Array) -> jax.Array:
        """Log-density [...] of the actions tanh(u), from u [..., dim]: exact also where tanh(u) rounds to ±1."""
        return self._log_prob((pre_tanh - self.mean) * jnp.exp(-self.log_std), pre_tanh)

    def mode(self) -> tuple[jax.Array, jax.Array]:
        """tanh(m) [..., dim], the deterministic action, and its log-probability [...]."""
        return jnp.tanh(self.mean), self._log_prob(jnp.zeros_like(self.mean), self.mean)

    def entropy(self, key: jax.Array) -> jax.Array:
        """−log π(a) of one reparameterised draw [...]: an unbiased estimate of the entropy and its gradient."""
        return -self.sample(key)[1]

    def _log_prob(self, noise: jax.Array, pre_tanh: jax.Array) -> jax.Array:
        """Takes the standardised noise (u − m)/s as it was drawn: recomputing it would lose digits."""
        normal = -0.5 * noise**2 - self.log_std - _HALF_LOG_2_PI
        log_derivative = 2 * (_LOG_2 - pre_tanh - jax.nn.softplus(-2 * pre_tanh))
        return sum_last(normal - log_derivative)


def pre_tanh(action: jax.Array) -> jax.Array:
    """Returns arctanh(a) of actions [..., dim]; those on the bounds count as the nearest inside."""
    bound = 1 - jnp.finfo(action.dtype).epsneg
    return jnp.arctanh(jnp.clip(action, -bound, bound))


@struct.dataclass
class Categorical:
    """A distribution over the actions 0, …, A − 1.

    Attributes:
        log_probs: [..., A], normalised; minus infinity for an action that is never taken.
    """

    log_probs: jax.Array

    def sample(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An action [...], int32, and its log-probability [...]."""
        noise = jax.random.gumbel(key, self.log_probs.shape, self.log_probs.dtype)
        action = argmax_last(noise + self.log_probs)
        return action, self.log_prob(action)

    def choose(self, key: jax.Array) -> Choice:
        """A draw to store: the same as `sample`."""
        return Choice(*self.sample(key))

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability [...] of actions [...]."""
        return take_last(self.log_probs, action)

    def mode(self) -> tuple[jax.Array, jax.Array]:
        """The likeliest action [...] and its log-probability [...]; of equals, the first."""
        action = argmax_last(self.log_probs)
        return action, self.log_prob(action)

    def entropy(self, key: jax.Array) -> jax.Array:
        """−Σ_a π(a) log π(a) [...], 0 log 0 = 0; exact, so that the key is not used."""
        return entropy(self.log_probs)


def mix(first: Categorical, second: Categorical, share: float | jax.Array) -> Categorical:
    """A mixture: (1 − share) of the first and `share` of the second, in [0, 1]; their log_probs broadcast.

    log [ (1 − ε) p + ε q ], finite wherever the mixture is positive.
    """
    share = jnp.asarray(share, first.log_probs.dtype)
    return Categorical(jnp.logaddexp(jnp.log1p(-share) + first.log_probs, jnp.log(share) + second.log_probs))
