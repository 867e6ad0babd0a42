"""Where do features merge?"""
