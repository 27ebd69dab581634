"""The same job in other engines, as their own users would write it, and what they make of the same topics."""
