"""Checks of a checkpoint that read it anew and trust nobody; nothing here writes to it."""
