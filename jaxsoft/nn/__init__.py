"""What agents' functions are made of: networks, distributions, running statistics."""
