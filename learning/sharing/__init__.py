"""Sharing policies: which devices are to take which task (Propius §control plane; Venn, arXiv 2312.08298). Pure functions.

`policy.py` says what one is, and knows them by name; those below register themselves.
"""

from learning.sharing import irs as _irs
from learning.sharing import maxmin as _maxmin
from learning.sharing import orders as _orders
from learning.sharing import tiers as _tiers

del _irs, _maxmin, _orders, _tiers
