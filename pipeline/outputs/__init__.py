"""What a run leaves behind: token Parquet, audio as files or Parquet, failed records, metrics and a dataset card."""
