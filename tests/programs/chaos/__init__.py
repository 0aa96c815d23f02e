"""A service that behaves at random, and callers who know whose response they must get."""
