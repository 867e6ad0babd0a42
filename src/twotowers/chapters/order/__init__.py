"""Why does the order of demonstrations matter?"""
