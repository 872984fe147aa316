"""What `maasflow compress` tries beside a recipe's own compressors, unless it is told what to try."""

from typing import Final

from tasks.core.recipe import Chains

COMPRESSORS: Final[Chains] = (
    {"kind": "graph"},
    {"kind": "int8_dynamic"},
    {"kind": "int8_rows"},
    {"kind": "int8_static"},
    {"kind": "int8_static", "method": "percentile"},
    {"kind": "int8_weights"},
    {"kind": "int4_weights"},
    # A fifth of the size, and products as exact and as fast as those of int8.
    ({"kind": "int4_weights", "products": False, "block": 64}, {"kind": "int8_rows"}),
    {"kind": "fp16"},
)
"""None takes training: a minute or two for all of them on a BERT of six layers."""

FALLBACK: Final[Chains] = tuple(
    (trained, {"kind": last})
    for trained in ({"kind": "distill"}, {"kind": "prune", "heads": 0.5, "neurons": 0.67, "units": 0.25})
    for last in ("int8_rows", "int8_weights", "int4_weights")
)
"""Where none of those is within the limits: what takes training, made smaller still."""
