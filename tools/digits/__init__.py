"""What train_digits.py and eval_digits.py share."""
