"""What a run will cost, before it starts: work counted, then time, memory, disk and downloads."""
