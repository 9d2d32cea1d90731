"""`make bench`: what ProfileMate costs, measured with and without it by turns. `python benchmarks/overhead --help`."""
