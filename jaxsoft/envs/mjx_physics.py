"""Physics steps of MuJoCo MJX, with a solver of the contacts that an accelerator runs in few kernels.

Positions, velocities, inertia and the rows of the constraints are MJX's. Its solver goes round until it has converged,
asking the device each time, and searches a line in 50 steps of each round; this one takes a fixed number of rounds,
and finds the minimum on a line at once. Both end at the one minimum of a strictly convex cost.

Models have hinges, slides and free bodies, and a pyramidal friction cone. They have no dry friction of joints, no
tendons that pull, no equalities and sensors, and no actuators with a state of their own.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.mjx_contacts import correct
from jaxsoft.envs.mujoco import import_mjx

RUNGE_KUTTA = (0.0, 1 / 6), (0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6)
"""For each stage, how far ahead it is evaluated, and its weight; both as parts of the step."""


class Joints(NamedTuple):
    """The part of the state that a physics step moves.

    Attributes:
        qpos: [num_positions].
        qvel: [num_velocities].
        qacc: [num_velocities], the last acceleration: where the solver starts.
    """

    qpos: jax.Array
    qvel: jax.Array
    qacc: jax.Array


def step(model: Any, rest: Any, joints: Joints, num_rounds: int, geoms: np.ndarray | None = None) -> tuple[Joints, Any]:
    """One step of `model.opt.timestep`, by the model's integrator.

    Args:
        model: MJX's `Model`.
        rest: its `Data`, whose joints are replaced.
        joints: where it starts.
        num_rounds: of the solver.
        geoms: from `mjx_contacts.contact_geoms`; if given, contacts and turns are MuJoCo's, else MJX's.

    Returns:
        The moved joints, and MJX's `Data` of the last evaluation of the dynamics.
    """
    mjx, dt = import_mjx(), model.opt.timestep
    if model.opt.integrator == mjx.IntegratorType.EULER:
        data = forward(model, rest, joints, num_rounds, geoms)
        damped = mjx.full_m(model, data) + jnp.diag(dt * model.dof_damping)
        qvel = joints.qvel + dt * solve_positive(damped, data.qfrc_smooth + data.qfrc_constraint)
        return Joints(integrate(model, joints.qpos, dt * qvel), qvel, data.qacc), data

    def stage(carry: tuple[Joints, Joints, Any], part: jax.Array) -> tuple[tuple[Joints, Joints, Any], None]:
        last, total, _ = carry
        ahead, weight = part[0] * dt, part[1]
        change = ahead * last.qvel
        last = Joints(integrate(model, joints.qpos, change), joints.qvel + ahead * last.qacc, last.qacc)
        data = forward(model, rest, last, num_rounds, geoms)
        last = last._replace(qacc=data.qacc)
        if geoms is not None:
            last = last._replace(qvel=rates(model, change, last.qvel))
        total = total._replace(qvel=total.qvel + weight * last.qvel, qacc=total.qacc + weight * last.qacc)
        return (last, total, data), None

    # a loop, though it takes some kernels: it is compiled in a quarter of the time
    zeros = jax.tree.map(jnp.zeros_like, joints)
    parts = jnp.asarray(RUNGE_KUTTA, joints.qvel.dtype)
    (last, total, data), _ = jax.lax.scan(stage, (joints, zeros, rest), parts)
    qpos = integrate(model, joints.qpos, dt * total.qvel)
    return Joints(qpos, joints.qvel + dt * total.qacc, last.qacc), data


def forward(model: Any, rest: Any, joints: Joints, num_rounds: int, geoms: np.ndarray | None) -> Any:
    """MJX's `Data` of given joints: like `mjx.forward`, without sensors; for the arguments see `step`."""
    mjx = import_mjx()
    data = positions(model, rest.replace(qpos=joints.qpos, qvel=joints.qvel), geoms)
    data = mjx.fwd_actuation(model, mjx.fwd_velocity(model, data))
    data = data.replace(qfrc_smooth=data.qfrc_passive - data.qfrc_bias + data.qfrc_actuator)
    rows = Rows(data._impl.efc_J, data._impl.efc_D, data._impl.efc_aref)
    qacc, force = solve(mjx.full_m(model, data), data.qfrc_smooth, rows, joints.qacc, num_rounds)
    data = data.replace(qacc=qacc, qfrc_constraint=jnp.sum(rows.jacobian * force[:, None], 0))
    return data.tree_replace({"_impl.efc_force": force})


def positions(model: Any, data: Any, geoms: np.ndarray | None = None) -> Any:
    """MJX's `Data` with what the positions determine, constraints included: `mjx.fwd_position` without tendons."""
    mjx = import_mjx()
    with products_apart() if geoms is not None else contextlib.nullcontext():
        data = mjx.kinematics(model, data)
    data = mjx.collision(model, mjx.crb(model, mjx.com_pos(model, data)))
    if geoms is not None:
        data = correct(model, data, geoms)
    return mjx.transmission(model, mjx.make_constraint(model, data))


_TRACING = threading.RLock()


@contextlib.contextmanager
def products_apart() -> Iterator[None]:
    """Keeps MJX's products of quaternions from being fused while its kinematics is traced, by this thread.

    XLA would fuse those of a chain of bodies and compute each of them again for all four numbers of the next: a step of
    16 Pushers, whose arms have seven joints, took 9 s, of which milliseconds are left.
    """
    quaternions: Any = importlib.import_module("mujoco.mjx._src.math")
    this_thread = threading.get_ident()
    with _TRACING:
        multiply = quaternions.quat_mul

        def multiply_apart(u: jax.Array, v: jax.Array) -> jax.Array:
            product = multiply(u, v)
            return jax.lax.optimization_barrier(product) if threading.get_ident() == this_thread else product

        quaternions.quat_mul = multiply_apart
        try:
            yield
        finally:
            quaternions.quat_mul = multiply


class Rows(NamedTuple):
    """The constraints: row i pushes, with the force `stiffness · max(0, target − jacobian · qacc)`.

    Attributes:
        jacobian: [num_rows, num_velocities].
        stiffness: [num_rows].
        target: [num_rows], accelerations.
    """

    jacobian: jax.Array
    stiffness: jax.Array
    target: jax.Array


def solve(
    inertia: jax.Array, force: jax.Array, rows: Rows, qacc: jax.Array, num_rounds: int
) -> tuple[jax.Array, jax.Array]:
    """The acceleration under the constraints, by Newton's method with an exact search on each line.

    It minimises ½ (a − a0)ᵀ inertia (a − a0) + ½ Σ stiffness · min(0, jacobian · a − target)², a0 = inertia⁻¹ · force.

    Args:
        inertia: [n, n].
        force: [n], without that of the constraints.
        rows: the constraints.
        qacc: [n], where to start.
        num_rounds: steps of Newton's method.

    Returns:
        The acceleration [n], and the force of each row [num_rows].
    """
    jacobian, stiffness, target = rows

    def newton(_: int, qacc: jax.Array) -> jax.Array:
        miss = product(jacobian, qacc) - target
        smooth = product(inertia, qacc) - force
        # Hessian and gradient are one reduction
        columns = jnp.concatenate([jacobian, miss[:, None]], axis=1)
        sums = jnp.sum(jnp.where(miss < 0, stiffness, 0)[:, None, None] * jacobian[:, :, None] * columns[:, None], 0)
        gradient = smooth + sums[:, -1]
        search = -solve_positive(inertia + sums[:, :-1], gradient)
        rise, curve = inner(search, gradient), inner(search, product(inertia, search))
        return qacc + search * minimum_on_line(rise, curve, miss, product(jacobian, search), stiffness)

    qacc = jax.lax.fori_loop(0, num_rounds, newton, qacc)
    return qacc, -stiffness * jnp.minimum(product(jacobian, qacc) - target, 0)


def minimum_on_line(
    rise: jax.Array, curve: jax.Array, miss: jax.Array, change: jax.Array, stiffness: jax.Array
) -> jax.Array:
    """The x ≥ 0 with the least cost, smooth(x) + ½ Σ stiffness · min(0, miss + x · change)².

    The slope is piecewise linear and rises. It bends only where a row becomes active or ceases to be, so its values
    there on both sides of zero give the root.

    Args:
        rise: [], slope of the whole cost at x = 0.
        curve: [], second derivative of the smooth part.
        miss: [num_rows].
        change: [num_rows].
        stiffness: [num_rows].
    """
    bends = jnp.where(miss * change < 0, jnp.minimum(-miss / jnp.where(change == 0, 1, change), FAR), 0)
    x = jnp.append(bends, FAR)
    # min(0, miss + x · change) − min(0, miss), without cancellation
    growth = jnp.minimum(x[:, None] * change, -miss) + jnp.maximum(miss, 0)
    slope = rise + x * curve + jnp.sum(stiffness * change * growth, 1)
    below = slope <= 0
    x_low, slope_low = jnp.max(jnp.where(below, x, 0)), jnp.max(jnp.where(below, slope, jnp.minimum(rise, 0)))
    x_high, slope_high = jnp.min(jnp.where(below, FAR, x)), jnp.min(jnp.where(below, jnp.inf, slope))
    return x_low - slope_low * (x_high - x_low) / (slope_high - slope_low)


FAR = 1e6
"""Beyond any step of Newton's method, which are about 1 long."""


def solve_positive(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """Solves matrix · x = vector of a small positive definite matrix [n, n], element by element: one kernel or two."""
    n = len(vector)
    lower, pivots = [[matrix[i, j] for j in range(n)] for i in range(n)], []
    for j in range(n):
        for k in range(j):
            for i in range(j, n):
                lower[i][j] -= lower[i][k] * lower[j][k] * pivots[k]
        pivots.append(lower[j][j])
        for i in range(j + 1, n):
            lower[i][j] /= pivots[j]
    x = [vector[i] for i in range(n)]
    for i in range(n):
        for j in range(i):
            x[i] -= lower[i][j] * x[j]
    for i in reversed(range(n)):
        x[i] /= pivots[i]
        for j in range(i + 1, n):
            x[i] -= lower[j][i] * x[j]
    return jnp.stack(x)


def product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """Matrix [n, m] · vector [m] for few m: a sum that is fused with what uses it, in full precision everywhere."""
    return reduce(jnp.add, [matrix[:, j] * vector[j] for j in range(len(vector))])


def inner(x: jax.Array, y: jax.Array) -> jax.Array:
    """Vector [n] · vector [n] for few n; see `product`."""
    return product(x[None], y)[0]


def integrate(model: Any, qpos: jax.Array, change: jax.Array) -> jax.Array:
    """Positions [num_positions], moved by [num_velocities] metres and radians."""
    parts, v = [], 0
    for kind, q in zip(model.jnt_type, model.jnt_qposadr, strict=True):
        if kind == import_mjx().JointType.FREE:
            parts += [qpos[q : q + 3] + change[v : v + 3], turn(qpos[q + 3 : q + 7], change[v + 3 : v + 6])]
            v += 6
        else:
            parts.append(qpos[q : q + 1] + change[v : v + 1])
            v += 1
    return jnp.concatenate(parts)


def rates(model: Any, change: jax.Array, qvel: jax.Array) -> jax.Array:
    """How fast a change of positions [num_velocities] grows at given velocities [num_velocities].

    For a free body's rotation vector r and its angular velocity w that is w + ½ r × w + c · r × (r × w) with
    c = 1/12 + |r|²/720 + … (the method of Munthe-Kaas); for all else it is the velocity.
    """
    for kind, v in zip(model.jnt_type, model.jnt_dofadr, strict=True):
        if kind == import_mjx().JointType.FREE:
            rotation, speed = change[v + 3 : v + 6], qvel[v + 3 : v + 6]
            across, squared = jnp.cross(rotation, speed), jnp.sum(rotation**2)
            weight = 1 / 12 + squared / 720 + squared**2 / 30240
            qvel = qvel.at[v + 3 : v + 6].add(across / 2 + weight * jnp.cross(rotation, across))
    return qvel


def turn(quaternion: jax.Array, rotation: jax.Array) -> jax.Array:
    """A unit quaternion [4], turned by a rotation vector [3] of its own frame, in radians."""
    angle = jnp.linalg.norm(rotation)
    w, x, y, z = jnp.append(jnp.cos(angle / 2), rotation * jnp.sinc(angle / (2 * jnp.pi)) / 2)
    a, b, c, d = quaternion
    real, i = a * w - b * x - c * y - d * z, a * x + b * w + c * z - d * y
    j, k = a * y - b * z + c * w + d * x, a * z + b * y - c * x + d * w
    turned = jnp.stack([real, i, j, k])
    return turned / jnp.linalg.norm(turned)
