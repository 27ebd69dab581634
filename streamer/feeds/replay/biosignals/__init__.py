"""Recordings of wards and sleep laboratories: EDF, EDF+, BDF and WFDB, with their annotations."""
