"""What do query and key measure?"""
