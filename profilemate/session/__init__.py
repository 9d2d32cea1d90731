"""Reading a session folder: streams, processes, clocks and the views that the exports share. Standard library only."""
