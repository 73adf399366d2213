"""Accuracy of rerankers: documents that single vectors found, in the order of their scores."""
