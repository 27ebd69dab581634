"""Tables of telemetry, as loggers, phones and spreadsheets write them: CSV, TSV and the like.

table    rows as telemetry     header   columns and their names     cells   numbers and times
"""
