"""The search page: python -m xjepa_jax.serve --index DIR"""

from __future__ import annotations

import sys

from xjepa_jax.serve.command import main

if __name__ == "__main__":
  sys.exit(main())
