"""Any number of host rows over the devices and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bark_model.replicated import Replicas


@pytest.fixture(params=[1, 4])
def replicas(request) -> Replicas:
    return Replicas(jax.local_devices()[: request.param], dtype=jnp.float32)


def test_rows_of_any_number_come_back_in_order(replicas):
    slots = 3
    weights = replicas.copy_to_all({"w": np.arange(2, dtype=np.float32)})
    mapped = replicas.program("test", lambda parameters, rows: {"sum": rows["x"] @ parameters["w"], "id": rows["id"]})
    for batch in range(1, replicas.count * slots + 1):
        rows = {"x": np.random.default_rng(batch).normal(size=(batch, 2)).astype(np.float32), "id": np.arange(batch)}
        result = replicas.run_rows(mapped, weights, rows, slots)
        assert result["id"].tolist() == list(range(batch))
        np.testing.assert_allclose(result["sum"], rows["x"][:, 1], rtol=1e-6)


def test_too_many_rows_are_refused(replicas):
    mapped = replicas.program("test", lambda parameters, rows: rows)
    capacity = replicas.count * 2
    message = f"{capacity + 1} rows, {replicas.count} devices of 2 slots hold 1 to {capacity}: split the batch"
    with pytest.raises(ValueError, match=message):
        replicas.run_rows(mapped, replicas.copy_to_all(np.zeros(1)), np.zeros(capacity + 1), 2)


def test_compiles_once_for_every_number_of_rows(replicas):
    traces = []

    def traced(parameters, rows):
        traces.append(rows.shape)
        return rows + parameters

    mapped = replicas.program("test", traced)
    weights = replicas.copy_to_all(np.float32(1))
    for batch in (1, 2, 3):
        replicas.run_rows(mapped, weights, np.zeros(batch, np.float32), 3)
    assert traces == [(3,)]


def test_every_device_holds_a_copy(replicas):
    tree = replicas.copy_to_all({"w": np.arange(6).reshape(2, 3)})
    assert tree["w"].shape == (replicas.count, 2, 3)
    assert len(tree["w"].sharding.device_set) == replicas.count
    assert (np.asarray(tree["w"]) == np.arange(6).reshape(2, 3)).all()


def test_float32_is_multiplied_in_float32():
    assert Replicas(dtype=jnp.float32).precision == "highest"
    assert Replicas(dtype=jnp.bfloat16).precision == "default"
