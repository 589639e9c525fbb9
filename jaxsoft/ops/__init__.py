"""The mathematics: unbatched pure functions on arrays; the caller vmaps."""

from jaxsoft.ops.returns import n_step_soft_returns, soft_lambda_returns, soft_q_targets, soft_tree_backup_returns
from jaxsoft.ops.soft import (
    boltzmann_log_probs,
    boltzmann_policy,
    entropy,
    kl_divergence,
    kl_penalty,
    soft_value,
    temperature_loss,
)
from jaxsoft.ops.traces import accumulate_trace, decay_trace, trace_coefficients

__all__ = [
    "accumulate_trace",
    "boltzmann_log_probs",
    "boltzmann_policy",
    "decay_trace",
    "entropy",
    "kl_divergence",
    "kl_penalty",
    "n_step_soft_returns",
    "soft_lambda_returns",
    "soft_q_targets",
    "soft_tree_backup_returns",
    "soft_value",
    "temperature_loss",
    "trace_coefficients",
]
