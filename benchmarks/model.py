"""The model that is measured."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256
"""The model's limit, [CLS] and [SEP] included."""
