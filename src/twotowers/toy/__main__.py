"""Train the toy model anew: `python -m twotowers.toy FOLDER`."""

import sys

from .train import main

sys.exit(main())
