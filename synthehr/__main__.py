"""Run the command line as ``python -m synthehr``."""

import sys

from synthehr.cli import main

sys.exit(main())
