"""What the machine and the operating system give a process: cores, memory, files, streams."""
