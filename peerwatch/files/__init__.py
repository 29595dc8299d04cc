"""Logs and outputs that are files: following them through rotations, and cutting them back to a checkpoint."""
