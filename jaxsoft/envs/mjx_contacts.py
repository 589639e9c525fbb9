"""Contacts as MuJoCo itself finds them, where MJX finds others.

MJX adds 1e-6 to the denominators with which it finds the nearest points of spheres and capsules, gives a capsule
steeper than 60° on a plane another direction of friction, and looks for two contacts of a capsule with a cylinder,
not one as in MuJoCo, by 10 steps of gradient descent. Here they are exact. One difference is left: two capsules that
are parallel (half-length × half-length × the sine of their angle below 3e-8 m²) have one contact, in MuJoCo two.

Capsules have a length above 0. Distances, positions and frames are finite everywhere; their gradients are not where a
direction is undefined: of spheres with one centre, of crossing axes, and on a cylinder's axis.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.mujoco import import_mjx

Contacts = tuple[jax.Array, jax.Array, jax.Array]
"""Distances [n], negative inside; positions [n, 3]; frames [n, 3, 3], the normal first, from geom to geom."""

CUTS, CUT_ROUNDS = 31, 6
"""At how many points what is searched is cut into parts, and how often the right part is cut again: to 1e-9 of it."""


def contact_geoms(model: Any, data: Any) -> np.ndarray:
    """[num_contacts, 2], the geoms of each of MJX's contacts; the geom of the lower type is the first."""
    return np.asarray(jax.jit(lambda data: import_mjx().collision(model, data)._impl.contact.geom)(data))


def correct(model: Any, data: Any, geoms: np.ndarray) -> Any:
    """MJX's `Data` after its `collision`, with MuJoCo's contacts of these geoms, which are from `contact_geoms`."""
    kind = import_mjx().GeomType
    if not len(geoms):
        return data
    types, contact, parts = model.geom_type[geoms], data._impl.contact, []
    changes = np.flatnonzero(np.any(np.diff(types, axis=0), axis=1)) + 1
    for part in np.split(np.arange(len(geoms)), changes):
        first, second = geoms[part].T
        found = tuple(x[part[0] : part[-1] + 1] for x in (contact.dist, contact.pos, contact.frame))
        match tuple(types[part[0]]):
            case (kind.PLANE, kind.CAPSULE):
                found = *found[:2], frames(found[2][:, 0], data.geom_xmat[second, :, 2])
            case (kind.CAPSULE, kind.CYLINDER):
                found = _capsule_cylinder(model, data, first, second)
            case (kind.SPHERE | kind.CAPSULE, kind.SPHERE | kind.CAPSULE):
                found = _capsules(model, data, first, second)
        parts.append(found)
    dist, pos, frame = (jnp.concatenate(x) for x in zip(*parts, strict=True))
    return data.tree_replace({"_impl.contact": contact.replace(dist=dist, pos=pos, frame=frame)})


def frames(normal: jax.Array, tangent: jax.Array) -> jax.Array:
    """[n, 3, 3] from unit normals [n, 3] and, up to a part along these, the directions of the first tangents [n, 3]."""
    tangent -= normal * jnp.sum(normal * tangent, 1, keepdims=True)
    tangent = _unit(tangent)
    return jnp.stack([normal, tangent, jnp.cross(normal, tangent)], axis=1)


def _unit(x: jax.Array) -> jax.Array:
    """Vectors [n, 3] of length 1; x̂ in place of a vector that is 0."""
    length = jnp.linalg.norm(x, axis=1, keepdims=True)
    return jnp.where(length > 0, x / jnp.where(length > 0, length, 1), jnp.array([1.0, 0, 0]))


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """The quotient x / y, clipped to ±1; 0 where y is 0."""
    return jnp.clip(x / jnp.where(y > 0, y, jnp.inf), -1, 1)


def _any_tangent(normal: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(normal[:, 1:2]) < 0.5, jnp.array([0.0, 1, 0]), jnp.array([0.0, 0, 1]))


def _segment(model: Any, data: Any, geoms: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Centres [n, 3], vectors to the ends [n, 3] and radii [n] of capsules, or of spheres, whose vectors are 0."""
    lengths = jnp.where(model.geom_type[geoms] == import_mjx().GeomType.CAPSULE, model.geom_size[geoms, 1], 0)
    return data.geom_xpos[geoms], data.geom_xmat[geoms, :, 2] * lengths[:, None], model.geom_size[geoms, 0]


def _capsules(model: Any, data: Any, first: np.ndarray, second: np.ndarray) -> Contacts:
    """One contact of each pair of spheres or capsules, of the first ones [n] with the second ones [n]."""
    (pos_a, end_a, radius_a), (pos_b, end_b, radius_b) = (_segment(model, data, geoms) for geoms in (first, second))
    x, y = nearest_on_segments(pos_b - pos_a, end_a, end_b)
    point = pos_a + x[:, None] * end_a
    gap = pos_b + y[:, None] * end_b - point
    length = jnp.linalg.norm(gap, axis=1)
    normal = _unit(gap)
    dist = length - radius_a - radius_b
    pos = point + (radius_a + dist / 2)[:, None] * normal
    return dist, pos, frames(normal, _any_tangent(normal))


def nearest_on_segments(shift: jax.Array, end_a: jax.Array, end_b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The x and y [n] from −1 to 1 with the least |shift + y · end_b − x · end_a|; each of these is [n, 3].

    On each of the two lines the other's best point is known; so is the best pair, which is clipped to the segments.
    """
    aa, ab, bb, a, b = (
        jnp.sum(p * q, 1) for p, q in ((end_a, end_a), (end_a, end_b), (end_b, end_b), (end_a, shift), (end_b, shift))
    )

    x = _ratio(bb * a - ab * b, aa * bb - ab**2)
    y = _ratio(x * ab - b, bb)
    return _ratio(a + y * ab, aa), y


def _capsule_cylinder(model: Any, data: Any, first: np.ndarray, second: np.ndarray) -> Contacts:
    """One contact of each capsule with a cylinder; MJX has two in a row, of which the other is put far away."""
    first, second = first[::2], second[::2]
    pos, end, radius = _segment(model, data, first)
    turn, size = data.geom_xmat[second], model.geom_size[second]
    pos, end = (jnp.einsum("nij,ni->nj", turn, x) for x in (pos - data.geom_xpos[second], end))
    outside, inside = nearest_to_cylinder(pos, end, size), way_out_of_cylinder(pos, end, size)
    point, gap, away = (
        jnp.where(jnp.expand_dims(outside[1] > 0, range(1, x.ndim)), x, y) for x, y in zip(outside, inside, strict=True)
    )
    dist = gap - radius
    pos = point - (radius + dist / 2)[:, None] * away
    pos, normal = (jnp.einsum("nij,nj->ni", turn, x) for x in (pos, -away))
    pos, frame = pos + data.geom_xpos[second], frames(normal, _any_tangent(normal))
    return jnp.stack([dist, jnp.ones_like(dist)], axis=1).flatten(), jnp.repeat(pos, 2, 0), jnp.repeat(frame, 2, 0)


def nearest_to_cylinder(pos: jax.Array, end: jax.Array, size: jax.Array) -> Contacts:
    """The points of segments from pos − end to pos + end [n, 3] that are nearest to, or deepest in, a cylinder.

    Its axis is z, its centre 0, `size` [n, 2 or more] its radius and half its height. The distance from a convex body
    is convex along a line: where its slope changes sign is the minimum.

    Returns:
        The points [n, 3], their distances from the cylinder [n], and the directions away from it [n, 3].
    """

    def cut(_: int, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, width = part[0], part[1] / (CUTS + 1)
        x = low[:, None] + width * jnp.arange(1, CUTS + 1)
        gradient = cylinder_distance(pos[:, None] + x[:, :, None] * end[:, None], size[:, None])[1]
        falls = jnp.sum(gradient * end[:, None], 2) <= 0
        return low + width * jnp.sum(falls, 1), width

    start = -jnp.ones_like(pos[:, 0]), jnp.asarray(2, pos.dtype)
    low, width = jax.lax.fori_loop(0, CUT_ROUNDS, cut, start)
    point = pos + (low + width / 2)[:, None] * end
    return point, *cylinder_distance(point, size)


def way_out_of_cylinder(pos: jax.Array, end: jax.Array, size: jax.Array) -> Contacts:
    """Like `nearest_to_cylinder`, for segments in a cylinder: the least shift that parts them, MuJoCo's depth.

    It is along the axis, or at right angles to it, or at right angles to the segment.
    """

    def depth(away: jax.Array) -> jax.Array:
        """[n, k], how far along each of the unit vectors [n, k, 3] the segment is to be shifted."""
        reach = jnp.linalg.norm(away[..., :2], axis=-1) * size[:, :1] + jnp.abs(away[..., 2]) * size[:, 1:2]
        return reach + jnp.abs(jnp.sum(away * end[:, None], 2)) - jnp.sum(away * pos[:, None], 2)

    upwards = jnp.where(pos[:, 2:] < 0, -1, 1) * jnp.array([0.0, 0, 1])
    x_upwards = -jnp.sign(jnp.sum(upwards * end, 1))

    x_level = _ratio(-jnp.sum(pos[:, :2] * end[:, :2], 1), jnp.sum(end[:, :2] ** 2, 1))
    level = _unit((pos + x_level[:, None] * end) * jnp.array([1.0, 1, 0]))

    across = _unit(jnp.cross(jnp.array([0.0, 0, 1]), end))
    other = jnp.cross(_unit(end), across)
    across, other = (jnp.where(jnp.sum(x * pos, 1, keepdims=True) < 0, -x, x) for x in (across, other))

    def normals(angle: jax.Array) -> jax.Array:
        return jnp.cos(angle)[..., None] * across[:, None] + jnp.sin(angle)[..., None] * other[:, None]

    def cut(_: int, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle, width = part
        angles = middle[:, None] + width * jnp.linspace(-1, 1, CUTS, dtype=pos.dtype)
        best = jnp.argmin(depth(normals(angles)), 1, keepdims=True)
        return jnp.take_along_axis(angles, best, 1)[:, 0], width * 2 / (CUTS - 1)

    quarter = jnp.asarray(np.pi / 4, pos.dtype)
    angle, _ = jax.lax.fori_loop(0, CUT_ROUNDS, cut, (jnp.full_like(pos[:, 0], quarter), quarter))
    tilted = normals(angle[:, None])[:, 0]
    rim = (
        _unit(tilted * jnp.array([1.0, 1, 0])) * size[:, :1] + jnp.sign(tilted * jnp.array([0.0, 0, 1])) * size[:, 1:2]
    )
    x_tilted = _ratio(jnp.sum((rim - depth(tilted[:, None]) * tilted - pos) * end, 1), jnp.sum(end**2, 1))

    ways, x = jnp.stack([upwards, level, tilted], axis=1), jnp.stack([x_upwards, x_level, x_tilted], axis=1)
    depths = depth(ways)
    # a tilted way that is as short is one of the others, for which `x_tilted` does not hold
    best = jnp.argmin(depths.at[:, 2].add(1e-6 * size[:, 0]), 1, keepdims=True)
    depths, x = (jnp.take_along_axis(y, best, 1) for y in (depths, x))
    return pos + x * end, -depths[:, 0], jnp.take_along_axis(ways, best[:, :, None], 1)[:, 0]


def cylinder_distance(point: jax.Array, size: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distances [...] of points [..., 3] from such cylinders, negative inside, and their gradients [..., 3]."""
    from_axis = jnp.linalg.norm(point[..., :2], axis=-1)
    outwards = point[..., :2] / jnp.where(from_axis > 0, from_axis, 1)[..., None]
    side, top = from_axis - size[..., 0], jnp.abs(point[..., 2]) - size[..., 1]
    # beside, above, beyond the rim, or inside: nearer to the side or to a base
    rim = (side > 0) & (top > 0)
    length = jnp.where(rim, jnp.sqrt(jnp.where(rim, side**2 + top**2, 1)), jnp.maximum(side, top))
    by_side = jnp.where(rim, side / length, side > top)
    by_top = jnp.where(rim, top / length, side <= top)
    return length, jnp.concatenate([by_side[..., None] * outwards, (by_top * jnp.sign(point[..., 2]))[..., None]], -1)
