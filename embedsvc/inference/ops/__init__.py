"""The operations that forward passes are written in, and the backends: mlx, native, numpy."""
