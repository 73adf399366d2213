"""Evaluation of a pack on sets with relevance judgements or human scores, compared with its reference."""
