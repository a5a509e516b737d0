"""A task of this package in a process of its own: how it is started, spoken to, limited and guarded.

`verify --isolated`, `check` and the captures that are kept all use it.
"""
