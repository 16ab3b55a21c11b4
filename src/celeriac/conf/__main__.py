"""``python -m celeriac.conf`` prints the settings' page of the documentation."""

import sys

from celeriac.conf.markdown import markdown_table

sys.stdout.write(markdown_table())
