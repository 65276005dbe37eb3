"""Rows of any number and length through the stages on a fixed number of slots a device.

Compiled shapes never change: rows enter free slots and leave when they end. A row's tokens depend on its own
prompt, settings and key, and on the compiled shape; never on its slot, its device or its neighbours.
"""

from bark_model.engines.coarse import CoarseEngine
from bark_model.engines.codec import CodecEngine
from bark_model.engines.fine import FineEngine
from bark_model.engines.semantic import SemanticEngine
from bark_model.engines.slots import Engine
from bark_model.outcomes import Stage

ENGINES: dict[Stage, tuple[str, type[Engine]]] = {
    "semantic": ("semantic", SemanticEngine),
    "coarse": ("coarse", CoarseEngine),
    "fine": ("fine", FineEngine),
    "audio": ("codec", CodecEngine),
}
"""Stage -> the network it runs and the engine that runs it."""
