"""Sessions side by side: settings, key numbers with their noise, distributions."""
