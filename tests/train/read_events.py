"""Reads event files with TensorBoard's own reader: python read_events.py FOLDER

`pip install tensorboard setuptools`. Prints the last value of each series and how many there are.
"""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1])
events.Reload()
for tag in events.Tags()["scalars"]:
    values = events.Scalars(tag)
    print(f"{tag}: {len(values)} steps, {values[-1].value:.6g} at step {values[-1].step}")
