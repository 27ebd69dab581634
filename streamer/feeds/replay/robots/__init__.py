"""Logs of messages, as robots write them: MCAP files, bags of ROS 1 and ROS 2.

mcap, ros        the files: their topics, and messages as trees     messages   messages become records
protobuf         decoders of messages by schema                     topics     which topics are sent
rostypes         the same for ROS: CDR, ROS 1's serialisation       fields     times and numbers in a message
cutbag           bags of ROS 1 that were cut off                    pictures, sound   those in messages
"""
