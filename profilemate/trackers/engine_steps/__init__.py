"""Engine steps: what each was made of, how long scheduling and update took, and which limit bound it."""
