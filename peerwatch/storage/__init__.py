"""All that lives in the state directory: checkpoints, the journal, models, labels, status."""
