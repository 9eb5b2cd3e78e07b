import sys

from attacks.table import main

sys.exit(main())
