"""The running process: from settings to actors, supervision, preflight checks, the decision log."""
