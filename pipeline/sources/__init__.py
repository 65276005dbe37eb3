"""Where records come from: input shards, listed once by the launcher and read, each as a stream, by any worker."""

from pipeline.sources.read import read_shard
from pipeline.sources.shards import Shard, SourceError, list_shards

__all__ = ["Shard", "SourceError", "list_shards", "read_shard"]
