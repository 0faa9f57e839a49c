"""Data, tokenizer, training and export of the nano model that edged ships."""
