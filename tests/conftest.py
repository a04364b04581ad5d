"""How tests are run.

Property tests run alike everywhere where `CI` is set, otherwise anew every time. Jobs are kept in
memory, unless a test says where.
"""

import os

from hypothesis import settings

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")

os.environ["IM_STORE"] = "sqlite::memory:"
