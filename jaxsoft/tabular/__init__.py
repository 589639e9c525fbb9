"""Whole algorithms on finite MDPs: dynamic programming, and online learning with traces."""

from jaxsoft.tabular.dynamic_programming import (
    soft_policy_evaluation,
    soft_policy_evaluation_exact,
    soft_policy_improvement,
    soft_policy_iteration,
    soft_value_iteration,
)

__all__ = [
    "soft_policy_evaluation",
    "soft_policy_evaluation_exact",
    "soft_policy_improvement",
    "soft_policy_iteration",
    "soft_value_iteration",
]
