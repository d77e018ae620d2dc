"""Models of a table's joint distribution, learned through the door and sampled without it."""

import os

# Where another process wants the same core, spinning OpenMP threads made a fit thirteen times slower (on two cores);
# threads that sleep while they wait cost nothing. It is read when torch is loaded, hence here, and is only a default.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
