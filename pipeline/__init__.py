"""The Beam pipeline around Bark: text shards in, committed audio and token Parquet out."""
