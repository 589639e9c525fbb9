"""What is done for CPUs only is done there, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxsoft.cpu import block_size, compiler_options, knows_fusions, map_blocks, use_all_cores
from jaxsoft.fleet.devices import spread


def test_one_device_leaves_no_product_to_the_library_that_shares_it_badly():
    x = jax.numpy.ones((1, 256, 256))
    plain = jax.jit(jax.vmap(lambda x: x @ x)).lower(x).compile().as_text()
    if not plain or "ynn" not in plain:
        pytest.skip("this XLA leaves no product to it, or was told not to")
    program = spread(lambda x: x @ x).lower(x).compile().as_text()
    assert program
    assert "ynn" not in program


@pytest.mark.parametrize(("num_devices", "fusions"), [(1, ""), (2, "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT")])
def test_programs_on_cpus_are_compiled_with_the_options_that_make_them_fast(
    num_devices: int, fusions: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("XLA_FLAGS")
    options = {"xla_cpu_experimental_ynn_fusion_type": fusions}
    assert compiler_options(jax.devices("cpu")[:1] * num_devices) == options


def test_options_are_left_alone_where_they_mean_nothing_or_were_given(monkeypatch: pytest.MonkeyPatch):
    cpu = jax.devices("cpu")[:1]
    assert compiler_options([SimpleNamespace(platform="gpu")]) == {}
    with monkeypatch.context() as given:
        given.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE")
        assert compiler_options(cpu) == {}
    monkeypatch.setattr("jaxsoft.cpu.LIBRARY_FUSIONS", "xla_cpu_an_option_of_another_version")
    knows_fusions.cache_clear()
    try:
        assert compiler_options(cpu) == {}
    finally:
        knows_fusions.cache_clear()


def test_devices_that_are_made_already_stay(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    number = len(jax.local_devices())
    monkeypatch.setattr("jaxsoft.cpu.num_cores", lambda: number)
    use_all_cores()
    assert not caplog.records
    monkeypatch.setattr("jaxsoft.cpu.num_cores", lambda: number + 3)
    use_all_cores()
    assert len(jax.local_devices()) == number
    (record,) = caplog.records
    assert f"JAX has been used before use_all_cores: {number} of {number + 3} cores train seeds" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(("num_rows", "block"), [(3, 4), (8, 4), (7, 3)])  # in one block, in equal ones, with a rest
def test_rows_are_replaced_block_by_block_and_what_they_share_is_kept_once(num_rows: int, block: int):
    sizes = []

    def move(rows: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
        sizes.append(len(rows["x"]))
        return {"x": rows["x"] + step * rows["turn"], "turn": rows["turn"] + 1}

    rows = {"x": jax.numpy.arange(num_rows), "turn": jax.numpy.int32(5)}
    moved = jax.jit(map_blocks(move, block, {"x": 0, "turn": None}))(rows, jax.numpy.int32(10))
    np.testing.assert_array_equal(moved["x"], np.arange(num_rows) + 50)
    assert moved["turn"] == 6
    assert max(sizes) == min(num_rows, block_size(num_rows, block)) <= block
