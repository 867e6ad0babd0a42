"""What of the paper holds for this model?"""
