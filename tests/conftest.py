"""MindSpore is loaded after moviegen has set its environment, and before any test loads decord (see data/videos.py)."""
# ruff: noqa: I001

import moviegen  # noqa: F401
import mindspore  # noqa: F401
