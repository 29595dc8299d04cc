"""Going through the logs again: explanations, a user's state at a moment, verification, bisection."""
