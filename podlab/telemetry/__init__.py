"""Samples of what a pod's GPUs and its machine do: read from the probe's lines, streamed, and kept for a while."""
