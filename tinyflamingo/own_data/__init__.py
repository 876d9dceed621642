"""Training on the user's own data: the three stages on other documents, and scores of the result on them."""
