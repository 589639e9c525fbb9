"""What a compiled program costs: kernels and bytes against those known of programs that are written for it."""

import jax
import jax.numpy as jnp
import pytest

from jaxsoft.bench.compiled import parse, product_flops, program_cost, shape_bytes, turn_cost

LOOPS = """\
HloModule loops

%inner_body (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%a), index=0
  %x = f32[8]{0} get-tuple-element(%a), index=1
  %y = f32[8]{0} fusion(%x), kind=kLoop, calls=%doubled
  ROOT %out = (s32[], f32[8]{0}) tuple(%i, %y)
}

%doubled (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %sum = f32[8]{0} add(%p, %p)
}

%looked_up (table: f32[1000,8], at: s32[]) -> f32[1,8] {
  %table = f32[1000,8]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = f32[1,8]{1,0} dynamic-slice(%table, %at, %zero), dynamic_slice_sizes={1,8}
}

%replaced (table: f32[1000,8], new: f32[1,8], at: s32[]) -> f32[1000,8] {
  %table.1 = f32[1000,8]{1,0} parameter(0)
  %new = f32[1,8]{1,0} parameter(1)
  %at.1 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  ROOT %updated = f32[1000,8]{1,0} dynamic-update-slice(%table.1, %new, %at.1, %zero.1)
}

%unknown (b: (s32[], f32[8])) -> pred[] {
  %b = (s32[], f32[8]{0}) parameter(0)
  %j = s32[] get-tuple-element(%b), index=0
  ROOT %less = pred[] fusion(%j), kind=kLoop, calls=%below
}

%below (k: s32[]) -> pred[] {
  %k = s32[] parameter(0)
  %ten = s32[] constant(10)
  ROOT %lower = pred[] compare(%k, %ten), direction=LT
}

%turn (s: (s32[], f32[8], f32[1000,8])) -> (s32[], f32[8], f32[1000,8]) {
  %s = (s32[], f32[8]{0}, f32[1000,8]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %v = f32[8]{0} get-tuple-element(%s), index=1
  %t = f32[1000,8]{1,0} get-tuple-element(%s), index=2
  %c = f32[8]{0} copy(%v)
  %packed = (s32[], f32[8]{0}) tuple(%n, %c)
  %known = (s32[], f32[8]{0}) while(%packed), condition=%unknown, body=%inner_body, backend_config={"known_trip_count":{"n":"5"}}
  %open = (s32[], f32[8]{0}) while(%known), condition=%unknown, body=%inner_body
  %w = f32[8]{0} get-tuple-element(%open), index=1
  %read = f32[1,8]{1,0} fusion(%t, %n), kind=kLoop, calls=%looked_up
  %written = f32[1000,8]{1,0} fusion(%t, %read, %n), kind=kLoop, calls=%replaced
  ROOT %next = (s32[], f32[8]{0}, f32[1000,8]{1,0}) tuple(%n, %w, %written)
}

ENTRY %main (arg: (s32[], f32[8], f32[1000,8])) -> (s32[], f32[8], f32[1000,8]) {
  %arg = (s32[], f32[8]{0}, f32[1000,8]{1,0}) parameter(0)
  ROOT %turns = (s32[], f32[8]{0}, f32[1000,8]{1,0}) while(%arg), condition=%unknown, body=%turn
}
"""  # noqa: E501


def test_kernels_and_bytes_of_loops_and_of_indexed_tables():
    cost = turn_cost(LOOPS)
    # 5 rounds of one fusion; one round of a loop of unknown length, its test and the copy of it; then two fusions; and
    # the turn's own condition, which is not a part of the turn
    assert cost.kernels == {"copy": 1, "fusion": 5 + 1 + 1 + 2, "condition": 1}
    assert [(loop.num_rounds, loop.num_kernels) for loop in cost.loops] == [(5, 1), (None, 3)]
    row = 8 * 4
    table = (row + 4 + row) + (row + 4 + row)  # one row and the index read, one row written; twice
    assert cost.num_bytes == 2 * row + 5 * 2 * row + (2 * row + 4 + 1) + table


def test_shapes_in_bytes():
    assert shape_bytes("(f32[8,2]{1,0}, s32[], pred[3]{0}, bf16[4]{0}, u8[])") == 64 + 4 + 3 + 8 + 1


def test_a_loop_that_jax_compiled_counts_its_rounds():
    def program(x: jax.Array, n: jax.Array) -> jax.Array:
        def turn(_: jax.Array, x: jax.Array) -> jax.Array:
            return jax.lax.scan(lambda x, _: (jnp.sin(x) @ x, None), x, length=7)[0]

        return jax.lax.fori_loop(0, n, turn, x)

    hlo = jax.jit(program).lower(jnp.zeros((32, 32)), 3).compile().as_text()
    cost = turn_cost(str(hlo))
    assert [loop.num_rounds for loop in cost.loops] == [7]
    assert cost.num_kernels >= 7 * cost.loops[0].num_kernels >= 7 * 2  # a sine and a product, at the least
    assert product_flops(jax.make_jaxpr(program)(jnp.zeros((32, 32)), 3)) == 7 * 2 * 32**3


def test_a_call_with_turns_of_its_own_counts_the_outermost_loops_round():
    def program(x: jax.Array) -> jax.Array:
        def turn(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            x = jnp.sin(x) @ x @ x
            return jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: jnp.cos(x) - 1, x), None

        return jax.lax.scan(turn, x, length=7)[0]

    hlo = str(jax.jit(program).lower(jnp.zeros((32, 32))).compile().as_text())
    own = turn_cost(hlo, counts_turns=True)
    assert [loop.num_rounds for loop in own.loops] == [None]
    assert own.num_kernels > own.loops[0].num_kernels
    assert turn_cost(hlo).loops == ()  # takes the open loop for one over turns


def test_products_and_convolutions_are_counted_like_by_hand():
    def program(image: jax.Array, kernel: jax.Array) -> jax.Array:
        out = jax.lax.conv_general_dilated(image, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.einsum("nhwc,cd->nhwd", out, jnp.zeros((16, 5)))

    jaxpr = jax.make_jaxpr(jax.vmap(program, (0, None)))(jnp.zeros((3, 2, 10, 10, 4)), jnp.zeros((3, 3, 4, 16)))
    pixels = 3 * 2 * 8 * 8
    assert product_flops(jaxpr) == 2 * pixels * 16 * (3 * 3 * 4) + 2 * pixels * 16 * 5


def test_a_program_without_a_loop_has_no_turn():
    hlo = str(jax.jit(lambda x: x + 1).lower(jnp.zeros(3)).compile().as_text())
    assert program_cost(hlo).num_kernels == 1
    assert parse(hlo)
    with pytest.raises(ValueError, match="no loop"):
        turn_cost(hlo)


def test_rounds_are_read_from_the_condition_where_xla_notes_none():
    noted = 'backend_config={"known_trip_count":{"n":"5"}}'
    condition = """\
  %limit = s32[] constant(7)
  ROOT %less = pred[] compare(%j, %limit), direction=LT"""
    fusion = "  ROOT %less = pred[] fusion(%j), kind=kLoop, calls=%below"
    hlo = LOOPS.replace(f"body=%inner_body, {noted}", "body=%inner_body").replace(fusion, condition)
    assert [loop.num_rounds for loop in turn_cost(hlo).loops] == [7, 7]
