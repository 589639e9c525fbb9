"""The parts of agents: networks, distributions, running statistics."""
