"""The rebuilds that `llm-rebuild new` hands out with their steps emptied. Each file is whole and right:
what a learner gets is made from it, so that the two cannot drift apart. A step marked `# given` stays.
What they all begin with stands in `new.py`.
"""
