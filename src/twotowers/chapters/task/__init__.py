"""Can the model do the task?"""
