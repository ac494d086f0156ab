"""The commands, a file for each kind. What trains or scores is imported only where it is needed, so that a role of the plane stays small."""
