"""From a checkpoint's tensors to networks on the devices: abstract modules first, then checked arrays into them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from bark_model.checkpoint import Checkpoint
from bark_model.config import BarkConfig
from bark_model.encodec.codec import Codec
from bark_model.fine_transformer import FineTransformer
from bark_model.transformer import CausalTransformer
from bark_model.weights import Parameters, WeightError, part_parameters

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


def build(config: BarkConfig, part: str, dtype: DTypeLike) -> Callable[[], nnx.Module]:
    """A constructor of one network. The codec always computes in float32: audio is its output."""
    classes = {
        "semantic": lambda rngs: CausalTransformer(config.semantic, rngs=rngs, dtype=dtype),
        "coarse": lambda rngs: CausalTransformer(config.coarse, rngs=rngs, dtype=dtype),
        "fine": lambda rngs: FineTransformer(config.fine, rngs=rngs, dtype=dtype),
        "codec": lambda rngs: Codec(config.codec, rngs=rngs, dtype=jnp.float32),
    }
    return lambda: classes[part](nnx.Rngs(0))


def abstract(config: BarkConfig, part: str, dtype: DTypeLike) -> tuple[nnx.GraphDef, nnx.State]:
    """The network's structure and the shapes of its parameters; nothing is allocated, at any size."""
    return nnx.split(nnx.eval_shape(build(config, part, dtype)))


def read_parameters(checkpoint: Checkpoint, part: str) -> Parameters:
    """A network's parameters by our names, as stored (any float dtype), names and shapes checked."""
    return part_parameters(checkpoint.config, part, checkpoint.tensors(part))


def fill(state: nnx.State, parameters: Mapping[str, np.ndarray], part: str, dtype: DTypeLike) -> nnx.State:
    """Puts host arrays into an abstract state, cast to its dtypes; what is kept packed holds the bits of `dtype`.

    Any difference of names or shapes is refused.
    """
    flat = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    if set(flat) != set(parameters):
        difference = sorted(set(flat) ^ set(parameters))
        raise WeightError(
            f"{part}: parameters {', '.join(difference[:4])} are in the network or the table, not in both"
        )

    def cast(path: tuple, leaf: Any) -> Any:
        array = parameters[".".join(map(str, path))]
        if array.shape != leaf.shape:
            raise WeightError(f"{part}: parameter {path} has shape {array.shape}, the network expects {leaf.shape}")
        if leaf.dtype == np.uint16:
            return leaf.replace(np.asarray(array).astype(jnp.dtype(dtype)).view(np.uint16))
        return leaf.replace(np.asarray(array).astype(leaf.dtype))

    return nnx.from_flat_state([(path, cast(path, leaf)) for path, leaf in nnx.to_flat_state(state)])


@dataclass(frozen=True)
class Network:
    """One network: its static graph, and its parameters [R, ...] on every device.

    With `place` the parameters are a host tree, which `place` puts onto the devices for as long as they are needed.
    """

    graph: nnx.GraphDef
    parameters: Any
    place: Callable[[Any], Any] | None = None

    @contextmanager
    def on_devices(self) -> Iterator[Any]:
        """The parameters [R, ...] on every device; those put there for now are gone afterwards."""
        if self.place is None:
            yield self.parameters
            return
        placed = self.place(self.parameters)
        try:
            yield placed
        finally:
            for leaf in jax.tree.leaves(placed):
                leaf.delete()

    def bind(self, function: Callable) -> Callable:
        """function(module, *arrays) -> function(parameters, *arrays), to be mapped."""
        return lambda parameters, *arrays: function(nnx.merge(self.graph, parameters), *arrays)


def load_network(
    checkpoint: Checkpoint, part: str, dtype: DTypeLike, place: Callable[[Any], Any], *, resident: bool = True
) -> Network:
    """Reads, checks and casts one network; `place` puts it onto the devices, now or (not resident) whenever used."""
    graph, state = abstract(checkpoint.config, part, dtype)
    host = fill(state, read_parameters(checkpoint, part), part, dtype)
    return Network(graph, place(host)) if resident else Network(graph, host, place)


def parameter_bytes(config: BarkConfig, dtype: DTypeLike) -> dict[str, int]:
    """Device memory of each network's parameters, from shapes alone."""
    return {
        part: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract(config, part, dtype)[1]))
        for part in ("semantic", "coarse", "fine", "codec")
    }
