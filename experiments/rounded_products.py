"""Functions whose products of matrices have rounded operands, as a device computes them in TF32 or bfloat16.

The product of two such numbers is exact in float32 and sums stay float32, so that rounding the operands is all that a
device does: a CPU gives the numbers of a GPU or TPU, but for the order of sums. XLA computes products with a vector by
multiplying and summing, though, and multiplies in bfloat16 on GPUs where that is asked for: each term is rounded, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxsoft.bench.compiled import product_flops

EXPONENT_BITS = 8
"""Of float32, TF32 and bfloat16."""

MANTISSA_BITS = {"float32": 23, "tensorfloat32": 10, "bfloat16": 7}
"""Stored ones."""

PRODUCTS = ("dot_general", "conv_general_dilated")

INLINED = {
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}
"""Calls, each with the parameter that holds its program. Their rules are lost: gradients have been taken before."""


def rounded_products(function: Callable[..., Any], mantissa_bits: int) -> Callable[..., Any]:
    """The function with the operands of all its products rounded to nearest; arguments by name are static.

    Its gradient has products of its own, and would not round them: round the function that takes the gradient.
    """

    @wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        program, shapes = jax.make_jaxpr(partial(function, **options), return_shape=True)(*arguments)
        outputs = _evaluate(program.jaxpr, program.consts, jax.tree.leaves(arguments), mantissa_bits)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return called


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], mantissa_bits: int) -> list[Any]:
    """Binds a program's operations one by one, with rounded operands where they are products."""
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, [value(x) for x in equation.invars]
        if name in INLINED:
            inner = equation.params[INLINED[name]]
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs, mantissa_bits)
        else:
            if name in PRODUCTS:
                inputs = [_round(x, mantissa_bits) for x in inputs]
            params = {key: _round_inner(x, mantissa_bits) for key, x in equation.params.items()}
            if name == "dot_general" and mantissa_bits == MANTISSA_BITS["bfloat16"]:
                outputs = _narrow_dot(inputs[0], inputs[1], params)
            else:
                outputs = equation.primitive.bind(*inputs, **params)
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [value(x) for x in jaxpr.outvars]


def _narrow_dot(a: jax.Array, b: jax.Array, params: dict[str, Any]) -> jax.Array:
    """A product of operands in bfloat16; with one row, one column or one term in its sums all terms are rounded."""
    (contracted_a, contracted_b), (batch_a, batch_b) = params["dimension_numbers"]
    rows, columns = (
        [axis for axis in range(x.ndim) if axis not in (*contracted, *batch)]
        for x, contracted, batch in ((a, contracted_a, batch_a), (b, contracted_b, batch_b))
    )
    sizes = (math.prod(x.shape[i] for i in axes) for x, axes in ((a, rows), (b, columns), (a, contracted_a)))
    if 1 not in sizes:
        return jax.lax.dot_general(a, b, **params)
    first = len(batch_a)
    a = a.transpose(*batch_a, *rows, *contracted_a)
    b = b.transpose(*batch_b, *columns, *contracted_b)
    a = jnp.expand_dims(a, range(first + len(rows), first + len(rows) + len(columns)))
    terms = _round(a * jnp.expand_dims(b, range(first, first + len(rows))), MANTISSA_BITS["bfloat16"])
    return jnp.sum(terms, axis=range(terms.ndim - len(contracted_a), terms.ndim))


def _round(x: Any, mantissa_bits: int) -> Any:
    return jax.lax.reduce_precision(x, EXPONENT_BITS, mantissa_bits) if x.dtype == jnp.float32 else x


def _round_inner(param: Any, mantissa_bits: int) -> Any:
    """A parameter of an operation, in which programs, as the body of a loop, are replaced.

    Raises:
        NotImplementedError: a program that cannot be replaced has products.
    """
    if isinstance(param, tuple | list):
        return type(param)(_round_inner(x, mantissa_bits) for x in param) if _has_programs(param) else param
    if isinstance(param, ClosedJaxpr):
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in param.in_avals]
        return jax.make_jaxpr(lambda *inputs: _evaluate(param.jaxpr, param.consts, inputs, mantissa_bits))(*shapes)
    if isinstance(param, Jaxpr) and product_flops(param):
        raise NotImplementedError(f"an operation whose program is open has products: {param}")
    return param


def _has_programs(param: Sequence[Any]) -> bool:
    return any(isinstance(x, ClosedJaxpr | Jaxpr) for x in param)
