"""The contract between the half inside the server and the half that reads: tables, file names and the format number."""
