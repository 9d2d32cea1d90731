"""Tables of a session as polars data frames: what `profilemate.open` gives, and everything that decides is made from."""
