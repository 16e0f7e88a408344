"""How it learns: one training loop; pretraining and fine-tuning differ in data and objective only."""
