"""The rebuilds that `llm-rebuild new` hands out with their steps emptied. Each file is whole and right:
what a learner gets is made from it, so that the two cannot drift apart. A step marked `# given` stays, and what
stands above the axes is said in `new.py`, for it is the same for all.
"""
