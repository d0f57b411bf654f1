"""What others load: model card, quantised models, uploads, and how near they are to the weights."""
