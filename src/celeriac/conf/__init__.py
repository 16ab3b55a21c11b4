"""Every setting once: its name, type, default, old names, environment variables and meaning.

The tables (``table_tasks``, ``table_workers``, ``table_systems``) hold the settings; ``Settings``
holds one application's values.
"""

from __future__ import annotations

from celeriac.conf.markdown import markdown_table
from celeriac.conf.secrets import hide, hide_in_url
from celeriac.conf.setting import Setting
from celeriac.conf.settings import Settings
from celeriac.conf.table import SETTINGS, Change

__all__ = ["SETTINGS", "Change", "Setting", "Settings", "hide", "hide_in_url", "markdown_table"]
