"""What a model gives to the columns that people read: scores, labels, embeddings, entities, answers."""
