"""Every test here runs in one thread."""

from tests.threads import one_thread as one_thread
