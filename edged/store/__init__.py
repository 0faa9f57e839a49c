"""What lies on disk: model folders, what they hold and whether they are whole. Loads no weights, runs no model."""
