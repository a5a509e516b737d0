"""What a person's code did, read from a run of it beside the official one."""
