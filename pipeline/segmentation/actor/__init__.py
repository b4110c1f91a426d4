"""Work of one actor: images are loaded, predicted, labeled and encoded."""
