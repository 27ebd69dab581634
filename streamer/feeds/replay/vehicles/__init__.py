"""Logs of vehicles: CAN buses, openpilot, the comma2k19 data set.

can, canlog   frames of a bus out of their logs      comma   a segment of comma2k19
dbc           what is in the frames, by a database   rlog    logs of openpilot
mdf           signals that MF4 files hold ready
"""
