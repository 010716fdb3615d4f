"""`python -m tests.releases COMMIT`."""

import sys

from tests.releases import main

sys.exit(main())
