"""How fast: each prints what it measured beside the limit of the machine and the plain way, in the same run."""
