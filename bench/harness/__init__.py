"""What every measurement uses: interleaved timing, peak memory, the pieces of work, and the report."""
