"""Print the README's shell block that follows the marker ``<!-- command: NAME -->``."""

import re
import sys
from pathlib import Path

readme = (Path(__file__).parent.parent / "README.md").read_text()
block = re.search(rf"<!-- command: {re.escape(sys.argv[1])} -->\s*```\w*\n(.*?)```", readme, re.S)
if block is None:
    sys.exit(f"README.md has no command {sys.argv[1]!r}")
print(block.group(1), end="")
