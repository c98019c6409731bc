"""Measurements that the `runnel bench` command prints: ratios of interleaved runs in one process, and their medians."""
