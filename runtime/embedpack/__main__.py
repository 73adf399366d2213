"""python -m embedpack."""

import sys

from embedpack.cli import main

sys.exit(main())
