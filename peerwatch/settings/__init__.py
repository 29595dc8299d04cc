"""The settings model and the YAML file."""
