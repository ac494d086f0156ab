"""Many devices' trainings, each done in the way that was measured to be the fastest for its model."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from device_sim.batched import train_stacked, widths
from device_sim.trainer import Job, Run, train
from device_sim.workers import Workers
