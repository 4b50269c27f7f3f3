"""The backends that tests compare, each in float32."""

from collections.abc import Callable

from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.native import NativeOps
from embedsvc.inference.ops.numpy import NumpyOps

BACKENDS: dict[str, Callable[[], Ops]] = {
    "numpy": NumpyOps,
    "native": NativeOps,
    "mlx": lambda: MlxOps("float32"),
}
