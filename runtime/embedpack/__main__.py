"""python -m embedpack."""

import sys

from embedpack.cli.main import main

sys.exit(main())
