"""What a model must beat before its loss means anything. Not sources."""
