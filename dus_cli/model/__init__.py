"""What names and config say of a model: its layers, and what depends on their position.

Nothing here opens a file or knows a byte offset.
"""
