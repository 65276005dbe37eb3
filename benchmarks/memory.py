"""Device memory by model, dtype and slots, from shapes alone: nothing is allocated, so it runs anywhere in seconds.

    python -m benchmarks.memory

Weights are resident; a stage's slots (KV caches and state) live while the stage runs, one stage at a time. `needs` is
all weights and the largest slots, `low memory` the largest of a network with its own slots. What a program needs for
itself while it runs comes on top and is the compiler's matter: mostly one fine window's activations.
"""

import jax
import jax.numpy as jnp

from bark_model import coarse, semantic
from bark_model.networks import parameter_bytes
from bark_model.random_checkpoint import bark_preset

MODELS = {"bark-small": bark_preset(12, 12, 768), "bark": bark_preset(24, 16, 1024)}
GIB = 2**30


def state_bytes(make, config, slots: int, dtype) -> int:
    return sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(lambda: make(config, slots, dtype)))
    )


def fine_bytes(config, slots: int) -> int:
    """The residual stream and one layer's MLP of a fine window of every slot, float32."""
    return slots * config.generation.max_fine_input_length * config.fine.hidden_size * (1 + 4) * 4


def main() -> None:
    print("| model | dtype | slots | weights | semantic slots | coarse slots | fine window | needs | low memory |")
    print("|---" * 9 + "|")
    for name, config in MODELS.items():
        for dtype in (jnp.bfloat16, jnp.float32):
            weights = parameter_bytes(config, dtype)
            for slots in (8, 16, 32, 64, 128):
                slot_bytes = {
                    "semantic": state_bytes(semantic.empty_state, config, slots, dtype),
                    "coarse": state_bytes(coarse.empty_state, config, slots, dtype),
                    "fine": fine_bytes(config, slots),
                    "codec": 0,
                }
                needs = sum(weights.values()) + max(slot_bytes.values())
                low = max(weights[part] + slot_bytes[part] for part in weights)
                sizes = [sum(weights.values()), *list(slot_bytes.values())[:3], needs, low]
                cells = " | ".join(f"{size / GIB:.2f}" for size in sizes)
                print(f"| {name} | {jnp.dtype(dtype).name} | {slots} | {cells} |")


if __name__ == "__main__":
    main()
