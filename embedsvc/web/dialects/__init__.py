"""The APIs that clients of other servers speak, each in a file of its own.

A route reads its body into an `EmbeddingRequest`, and hands that to `web/embedding.py` with a
function that writes the answer; or into a `ScoringRequest`, for `web/scoring.py`. A new dialect is
a file with its structs, its `routes` and its `Dialect`, a line for its routes in `web/app.py`, and
one for its errors in `web/refusals.py`.
"""
