"""embedsvc: an OpenAI-compatible embedding server for one machine."""

from embedsvc.openblas import choose_kernels

__version__ = "0.1.0"

choose_kernels()
