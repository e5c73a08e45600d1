"""Measuring: policies side by side, streams at once, hours on end, the hardware's floor, and a check of a checkpoint.

A program built on the engine. Every figure comes with the device, the versions and the date it was measured with.
"""
