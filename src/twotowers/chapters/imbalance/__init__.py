"""Why does an imbalance of labels matter?"""
