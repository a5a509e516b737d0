"""The course's figures, drawn from the anatomy and from runs, so that their numbers are never typed.

    python -m tools.figures            # writes docs/figures/*.svg
    python -m tools.figures NAME       # this one: minilm-block, for example
    python -m tools.figures --check    # exit 1 if one of them is not what would be drawn now

`drawing.py` holds the pen, `kinds.py` the kinds of picture; the other files hold the pictures, by what
they are of.
"""
