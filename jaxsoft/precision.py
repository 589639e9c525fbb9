"""The precision of products of matrices, where a device has several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax

Function = TypeVar("Function", bound=Callable[..., Any])

MatmulPrecision = Literal["default", "float32", "tensorfloat32", "bfloat16"]
"""The setting.

    default         as JAX does it: TF32 on GPUs that have it, bfloat16 on TPUs, float32 on CPUs
    float32         float32, on TPUs in six passes
    tensorfloat32   TF32 on GPUs; on TPUs, which have none, bfloat16 in three passes
    bfloat16        operands are rounded to bfloat16, sums are float32

Parameters, moments and all else stay float32. On a CPU all four are float32."""

_JAX_NAMES = {"float32": "float32", "tensorfloat32": "tensorfloat32", "bfloat16": "BF16_BF16_F32"}


def in_precision(function: Function, precision: str) -> Function:
    """The function, its products and those of its gradients in this precision, where its code asks for none."""
    return function if precision == "default" else jax.default_matmul_precision(_JAX_NAMES[precision])(function)
