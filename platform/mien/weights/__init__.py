"""Weights that others trained: read without running their code, checked, kept as safetensors."""
