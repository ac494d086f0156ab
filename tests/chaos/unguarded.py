"""The command `olearning` with one guard taken out: `python -m tests.chaos.unguarded GUARD run aggregator …`.

For negative controls with real processes. Nothing in the product knows of it.
"""

import sys

from olearning.cli import main
from tests.chaos.controls import without

if __name__ == "__main__":
    with without(sys.argv.pop(1)):
        main()
