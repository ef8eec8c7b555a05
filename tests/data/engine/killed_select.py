"""`select` in one process, without Ray, for a test to kill: its tasks are called one after the other.

    python killed_select.py DIR EVAL OUT
"""

import sys
from contextlib import nullcontext
from pathlib import Path

from mixed_r1_ray.data import selecting
from mixed_r1_ray.data.engine import signatures
from mixed_r1_ray.data.engine.settings import SelectSettings

signatures.run_tasks = lambda function, calls, what: (function(*call) for call in calls)
signatures.PART_ROWS = 20
selecting.ray_for_data = lambda num_cpus: nullcontext()

if __name__ == "__main__":
    settings = SelectSettings(shard_records=16)
    settings.difficulty.enabled = False
    print("selecting", flush=True)
    selecting.select([sys.argv[1]], settings, Path(sys.argv[3]), {"bench": sys.argv[2]})
    print("done", flush=True)
