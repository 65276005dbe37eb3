"""Job files to start from; `bark-beam run configs/demo.yaml` runs the first."""
