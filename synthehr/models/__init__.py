"""Models of a table's joint distribution, learned through the door and sampled without it."""

import os

# Where another process wants the same core, spinning OpenMP threads made a fit thirteen times slower (measured on two
# cores); threads that sleep while they wait cost nothing. Read once, when torch is loaded: hence here, and only a default.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
