"""A rental company in a box: RunPod's REST v2 on this computer, for tutorials and tests.

Everything in it is simulated.
"""
