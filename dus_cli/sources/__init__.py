"""What a user calls a model, turned into a folder that can be opened."""
