"""What do value and output matrices carry?"""
