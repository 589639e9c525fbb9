"""The matrix products of SAC's hidden layers and nothing else: the ceiling of its speed. One JSON line.

An update with two hidden layers multiplies 16 times by a square matrix, of two critics side by side or of the policy:
the critics forward thrice (targets, loss, the policy's loss), back twice to their inputs and once to their weights; the
policy forward twice, back once to its inputs and once to its weights.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp

Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def products(x: jax.Array, xs: jax.Array, w: jax.Array, ws: jax.Array) -> Carry:
    """Of one seed: x [B, H] and the policy's w [H, H]; xs [2, B, H] and the critics' ws [2, H, H]; orthogonal ones."""
    first = x @ w
    second = first @ w
    back = second @ w.T
    of_w = first.T @ back
    ones = xs @ ws
    twos = ones @ ws
    threes = twos @ ws
    backs = threes @ ws.mT
    of_ws = ones.mT @ backs
    return back, backs @ ws.mT, of_w, of_ws


def main(num_seeds: int, hidden: int, batch_size: int, num_updates: int) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    w, ws = (
        jnp.linalg.qr(jax.random.normal(key, (num_seeds, *lead, hidden, hidden)))[0]
        for key, lead in zip(keys, ((), (2,)), strict=False)
    )
    x = jax.random.normal(keys[2], (num_seeds, batch_size, hidden))
    xs = jax.random.normal(keys[3], (num_seeds, 2, batch_size, hidden))

    @jax.jit
    def run(carry: Carry) -> Carry:
        return jax.lax.fori_loop(0, num_updates, lambda _, c: jax.vmap(products)(c[0], c[1], w, ws), carry)

    carry = jax.block_until_ready(run((x, xs, w, ws)))
    speeds = []
    for _ in range(2):
        begin = time.perf_counter()
        carry = jax.block_until_ready(run(carry))
        speeds.append(num_seeds * num_updates / (time.perf_counter() - begin))
    print(json.dumps({"steps_per_second": max(speeds)}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
