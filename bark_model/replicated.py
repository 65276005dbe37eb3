"""The only place that knows about devices: every local device holds the whole model and runs the same program.

Arrays here carry a leading axis R, one slice a device. `jax.pmap` maps over it; under `jit` the same arrays would do
unchanged, since they are already sharded `P("replica")` on the mesh below: replace `pmap(f)` by
`jit(shard_map(f, mesh, in_specs=P("replica"), out_specs=P("replica")))` with the leading axis squeezed inside.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike


def keep_compiled(folder: str | Path) -> None:
    """Keeps what this process compiles in a folder, and takes from there what an earlier one compiled.

    For machines of one kind: a program compiled for one CPU may not run on an older one.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class Replicas:
    """The devices of one process, and how trees of arrays get onto them and back."""

    def __init__(self, devices: Sequence[Any] | None = None, *, dtype: DTypeLike):
        self.devices = list(devices or jax.local_devices())
        self.count = len(self.devices)
        self.sharding = NamedSharding(Mesh(np.array(self.devices), ("replica",)), PartitionSpec("replica"))
        # A TPU multiplies float32 in bfloat16 passes unless told otherwise; tokens would not be the reference's.
        self.precision = "highest" if jnp.dtype(dtype) == jnp.float32 else "default"

    def put(self, tree: Any) -> Any:
        """A tree whose leaves are [R, ...] host arrays -> the same on the devices."""
        return jax.tree.map(lambda array: jax.device_put(array, self.sharding), tree)

    def copy_to_all(self, tree: Any) -> Any:
        """A host tree -> [R, ...], a full copy on every device."""
        return self.put(jax.tree.map(lambda a: np.broadcast_to(a, (self.count, *np.shape(a))), tree))

    def pmap(self, function: Callable, *, donate: tuple[int, ...] = ()) -> Callable:
        """`function` of trees without R -> one of trees with R, on every device at once.

        Compiles once for each new shape of its arguments; nothing else recompiles. Arguments in `donate` are reused
        for the result and gone afterwards.
        """

        def traced(*args):
            with jax.default_matmul_precision(self.precision):
                return function(*args)

        return jax.pmap(traced, axis_name="replica", devices=self.devices, donate_argnums=donate)

    def run_rows(self, mapped: Callable, parameters: Any, rows: Any, slots: int) -> Any:
        """Runs a mapped function of (parameters, rows) on any number of rows up to R * slots.

        Rows are host arrays [B, ...]; short batches are filled up with copies of the last row, so that the compiled
        shape never changes:  5 rows, R 2, slots 4  ->  [0 1 2 3] [4 4 4 4]. Returns host arrays [B, ...].
        """
        batch = len(jax.tree.leaves(rows)[0])
        capacity = self.count * slots
        if not 1 <= batch <= capacity:
            raise ValueError(
                f"{batch} rows, {self.count} devices of {slots} slots hold 1 to {capacity}: split the batch"
            )
        order = np.minimum(np.arange(capacity), batch - 1).reshape(self.count, slots)
        results = mapped(parameters, jax.tree.map(lambda array: np.asarray(array)[order], rows))
        return jax.tree.map(lambda array: np.asarray(array).reshape(capacity, *array.shape[2:])[:batch], results)
