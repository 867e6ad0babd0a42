"""Which layers and heads raise the answer?"""
