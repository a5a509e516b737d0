"""The command line. Thin: each command reads its arguments, calls one public function and prints.

What a command needs is imported inside it, so that `--help` does not wait for torch.
"""
