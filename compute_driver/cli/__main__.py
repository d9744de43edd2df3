"""`python -m compute_driver.cli`: the command `xenward`."""

import sys

from .main import main

sys.exit(main())
