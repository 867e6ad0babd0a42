"""From texts to tokens: tasks, prompt sets, their variants and their packing; knows no weights."""
