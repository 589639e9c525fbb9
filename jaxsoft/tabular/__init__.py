"""Whole algorithms on finite MDPs: dynamic programming, and online learning with traces."""

from jaxsoft.tabular.evaluation import expected_return, soft_policy_evaluation, soft_policy_evaluation_exact
from jaxsoft.tabular.iteration import soft_policy_improvement, soft_policy_iteration, soft_value_iteration
from jaxsoft.tabular.n_step import n_step_soft_q, n_step_soft_q_from_transitions
from jaxsoft.tabular.soft_q_lambda import soft_q_lambda, soft_q_lambda_from_transitions, soft_q_learning
from jaxsoft.tabular.walk import record_transitions

__all__ = [
    "expected_return",
    "n_step_soft_q",
    "n_step_soft_q_from_transitions",
    "record_transitions",
    "soft_policy_evaluation",
    "soft_policy_evaluation_exact",
    "soft_policy_improvement",
    "soft_policy_iteration",
    "soft_q_lambda",
    "soft_q_lambda_from_transitions",
    "soft_q_learning",
    "soft_value_iteration",
]
