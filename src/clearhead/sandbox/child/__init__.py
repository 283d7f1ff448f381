"""The confined process: it confines itself, runs programs or tests, and reports."""
