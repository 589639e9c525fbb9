"""Statistics, plots, films and loggers of runs."""
