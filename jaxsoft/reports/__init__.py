"""What is told of runs: statistics, plots and films."""
