"""modelarts-gateway: a sidecar that calls token-protected inference services for you.

The rooms, and the only direction in which they may import (down), are drawn in
`gateway/README.md`; `tests/test_architecture.py` holds the code to that picture.
"""

__version__ = "0.1.0"
