"""The chapters, read once for all files of tests that ask something of each."""

from __future__ import annotations

from tools import course, fences

CHAPTERS = course.read()
NOTEBOOKS = fences.chapters(course.DOCS)  # which have one
