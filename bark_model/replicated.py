"""The only place that knows about devices: every local device holds the whole model and runs the same program.

Arrays here carry a leading axis R, one slice a device. `jax.pmap` maps over it; under `jit` the same arrays would do
unchanged, since they are already sharded `P("replica")` on the mesh below: replace `pmap(f)` by
`jit(shard_map(f, mesh, in_specs=P("replica"), out_specs=P("replica")))` with the leading axis squeezed inside.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from bark_model.engine_stats import Compiled


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

    def program(self, name: str, function: Callable, *, donate: tuple[int, ...] = ()) -> "Program":
        """`function` of trees without R -> one of trees with R, on every device at once.

        Arguments in `donate` are reused for the result and gone afterwards.
        """

        def traced(*args):
            with jax.default_matmul_precision(self.precision):
                return function(*args)

        return Program(name, jax.pmap(traced, axis_name="replica", devices=self.devices, donate_argnums=donate))

    def run_rows(self, program: Callable, parameters: Any, rows: Any, slots: int) -> Any:
        """Runs a program of (parameters, rows) on host arrays [B, ...], B at most R * slots; gives host arrays too."""
        batch, capacity = len(jax.tree.leaves(rows)[0]), self.count * slots
        results = program(parameters, self.spread(rows, slots))
        return jax.tree.map(lambda array: np.asarray(array).reshape(capacity, *array.shape[2:])[:batch], results)

    def spread(self, rows: Any, slots: int) -> Any:
        """Host arrays [B, ...] -> [R, slots, ...], filled up with copies of the last row: the shape never changes.

        5 rows, R 2, slots 4  ->  [0 1 2 3] [4 4 4 4]
        """
        batch, capacity = len(jax.tree.leaves(rows)[0]), self.count * slots
        if not 1 <= batch <= capacity:
            raise ValueError(
                f"{batch} rows, {self.count} devices of {slots} slots hold 1 to {capacity}: split the batch"
            )
        order = np.minimum(np.arange(capacity), batch - 1).reshape(self.count, slots)
        return jax.tree.map(lambda array: np.asarray(array)[order], rows)


class Program:
    """A function mapped over the devices. Each new shape of its arguments compiles once; nothing else recompiles."""

    def __init__(self, name: str, mapped: Any):
        self.name = name
        self.compiled: list[Compiled] = []
        self._mapped, self._executables = mapped, {}

    def __call__(self, *arguments: Any) -> Any:
        return self.compile(*arguments)(*arguments)

    def compile(self, *arguments: Any) -> Callable:
        """The executable for arguments of these shapes, which are not touched; what is new is noted in `compiled`."""
        leaves, structure = jax.tree.flatten(arguments)
        key = (structure, *((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in self._executables:
            start = time.perf_counter()
            self._executables[key] = self._mapped.lower(*arguments).compile()
            largest = max(jax.tree.leaves(arguments[1:]) or leaves, key=lambda leaf: leaf.size)
            shape = "x".join(map(str, largest.shape))
            self.compiled.append(Compiled(self.name, shape, time.perf_counter() - start))
        return self._executables[key]
