"""A folder a chapter: its measures (model and prompts in, data frame out) and one `page` that shows them."""
