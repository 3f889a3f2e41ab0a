import sys

from longhaul.cli import main

sys.exit(main())
