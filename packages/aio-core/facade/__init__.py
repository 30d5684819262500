"""Placeholder; its owner is writing the public names."""
