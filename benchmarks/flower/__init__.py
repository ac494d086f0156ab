"""The peer: Flower, in an environment of its own. Only `app/` and `adding.py` run there, and only they import it."""
