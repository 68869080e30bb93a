"""The only part of the program that writes: moves byte ranges, then renames."""
