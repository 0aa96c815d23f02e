"""What one exchange costs, counted instead of timed: the guard of the hot path."""
