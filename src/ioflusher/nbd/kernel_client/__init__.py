"""The kernel's NBD client: attaching a device by ioctl or by netlink, and detaching it."""
