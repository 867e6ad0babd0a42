"""Do these heads matter?"""
