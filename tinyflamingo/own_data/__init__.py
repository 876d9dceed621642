"""Training on data of the user's own: the three stages over other documents, and how well the result knows them."""
