"""The machine's limit: how many tokens a second this model's float32 matrix products alone allow.

Runs in a process of its own (`python -m benchmarks.limit SECONDS`), because BLAS reads its number
of threads when it loads: as many threads of ours as there are cores, each with a one-thread BLAS,
each doing the six layers' four products on 512 tokens, over and over.
"""

import os
import subprocess
import sys
import threading
import time

from benchmarks.server import untuned

ROWS = 512
LAYERS = 6
PRODUCTS = ((384, 1152), (384, 384), (384, 1536), (1536, 384))
BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
ONE_THREAD = dict.fromkeys(BLAS, "1")


def measure_limit(seconds: float) -> float:
    """Tokens a second."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.limit", str(seconds)],
        env=untuned() | ONE_THREAD,
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    return float(done.stdout)


def main() -> None:
    """Print tokens a second."""
    import numpy as np

    seconds = float(sys.argv[1])
    threads = os.cpu_count() or 1
    barrier = threading.Barrier(threads)
    rates = [0.0] * threads

    def work(index: int) -> None:
        rng = np.random.default_rng(index)
        layers = [
            [rng.standard_normal(shape, dtype=np.float32) for shape in PRODUCTS]
            for _ in range(LAYERS)
        ]
        rows = {k: rng.standard_normal((ROWS, k), dtype=np.float32) for k, _ in PRODUCTS}
        out = {n: np.empty((ROWS, n), dtype=np.float32) for _, n in PRODUCTS}
        passes, began = 0, 0.0
        barrier.wait()
        while passes < 1 or time.perf_counter() < began + seconds:
            for layer in layers:
                for weights in layer:
                    k, n = weights.shape
                    np.matmul(rows[k], weights, out=out[n])
            passes, began = passes + 1, began or time.perf_counter()
        rates[index] = (passes - 1) * ROWS / (time.perf_counter() - began)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(sum(rates))


if __name__ == "__main__":
    main()
