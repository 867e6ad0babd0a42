"""How fast: the knock-out of every head beside other ways to do it, and beside the floor of its arithmetic."""
