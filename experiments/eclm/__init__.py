"""ECLM's evaluation (§2, §7): its figures and Table 1, made anew. `worlds.py` has data and devices, `cloud.py` the offline stage, `ways.py` who is compared."""
