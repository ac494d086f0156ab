"""Sharing policies: which devices are to take which task (Propius §control plane; Venn, arXiv 2312.08298). Pure functions."""
