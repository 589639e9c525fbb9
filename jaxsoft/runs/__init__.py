"""Run directories: what a training writes, reads and goes on from."""
