"""What makes the nano vision model: scenes, questions, tokenizer, model, training, export, scoring."""
