"""Code that runs in the confined process: confine, run programs or tests, report."""
