"""Work beside a run: sweeps, evaluation, data sets, detection in plain tables."""
