"""`python -m skill_trainer`."""

import sys

from skill_trainer.cli import main

sys.exit(main())
