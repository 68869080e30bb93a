"""Torch-free depth up-scaling of safetensors checkpoints."""

__version__ = "0.1.0"
