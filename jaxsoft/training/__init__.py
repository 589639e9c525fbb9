"""One training loop for every agent: settings, experience, turns, evaluation."""
