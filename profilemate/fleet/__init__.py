"""Sessions of a fleet as one partitioned Parquet data set, and the questions that are asked of it, written once with Ibis."""
