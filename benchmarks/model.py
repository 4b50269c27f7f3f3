"""The models that are measured, and their precisions."""

from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parent.parent
MODEL = "all-MiniLM-L6-v2"
LARGER = "bge-base"
"""BERT as large as bge-base, with random weights and the other's tokeniser."""
DIMENSIONS = {MODEL: 384, LARGER: 768}
MAX_TOKENS = 256
"""The models' limit, [CLS] and [SEP] included."""
OURS = "embedsvc"
"""The name of this project's servers, or its beginning."""
Precision = Literal["float32", "bfloat16", "int8"]
LEAST_COSINES: dict[Precision, float] = {"float32": 0.9999, "bfloat16": 0.999, "int8": 0.9}
"""The least cosine with sentence-transformers' vector in float32 of a text's own vector."""
