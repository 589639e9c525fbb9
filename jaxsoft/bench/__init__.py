"""The benchmark: workloads, what they are compiled to, how fast they run, how near to the chip's limits they are."""
