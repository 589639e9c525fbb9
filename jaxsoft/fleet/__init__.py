"""Many members at once: grids of settings, compiled programs, devices, memory, processes."""
