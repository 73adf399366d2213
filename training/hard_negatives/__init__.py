"""Training groups: a query, its document, and hard negatives with the scores of a teacher."""
