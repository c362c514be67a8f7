"""What this machine is: tasks, block devices, mounts, swap and sockets as one frozen Snapshot."""
